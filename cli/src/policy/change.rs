//! What would change, and changing it.

use std::collections::HashMap;

use serde::Serialize;
use signet_policy::{Rule, RuleName, render};
use signet_proto::admin::v1::{
    ApplyPolicyRequest, ApplyPolicyResponse, GetPolicyRequest, RollbackPolicyRequest, RuleChange,
};
use similar::{ChangeTag, TextDiff};

use super::files;
use crate::admin;
use crate::args::{ApplyOptions, ChangeOptions, DiffOptions, RollbackOptions};
use crate::asking::confirm;
use crate::failure::Failure;
use crate::output::{self, Format};

pub(crate) fn apply(options: &ApplyOptions, format: Format) -> Result<(), Failure> {
    // Once: what was shown is what is applied.
    let files = files::read(&options.files)?;
    carry_out(&options.change, format, |dry_run, expected_revision| {
        let request = ApplyPolicyRequest {
            files: files.clone(),
            prune: options.prune,
            dry_run,
            comment: options.change.message.clone(),
            expected_revision,
        };
        admin::call(&options.issuer, async |mut client| Ok(client.apply_policy(request).await?.into_inner()))
    })
}

pub(crate) fn roll_back(options: &RollbackOptions, format: Format) -> Result<(), Failure> {
    carry_out(&options.change, format, |dry_run, expected_revision| {
        let comment = options.change.message.clone();
        // Where none is named, that before the present one is meant: which is the same as long as nobody changes it.
        let request = RollbackPolicyRequest { revision: options.revision, dry_run, comment, expected_revision };
        admin::call(&options.issuer, async |mut client| Ok(client.rollback_policy(request).await?.into_inner()))
    })
}

pub(crate) fn diff(options: &DiffOptions, format: Format) -> Result<(), Failure> {
    let plan = match options.from {
        None => {
            let request = ApplyPolicyRequest {
                files: files::read(&options.files)?,
                prune: options.prune,
                dry_run: true,
                ..ApplyPolicyRequest::default()
            };
            admin::call(&options.issuer, async |mut client| Ok(client.apply_policy(request).await?.into_inner()))?
        }
        Some(from) => {
            let (older, newer) = admin::call(&options.issuer, async |mut client| {
                let older = client.get_policy(GetPolicyRequest { revision: Some(from) }).await?.into_inner();
                let newer = client.get_policy(GetPolicyRequest { revision: options.to }).await?.into_inner();
                Ok((older.yaml, newer.yaml))
            })?;
            between(from, &super::reading::rules_of(&older)?, &super::reading::rules_of(&newer)?)
        }
    };
    let differs = !plan.changes.is_empty();
    show(&plan, format)?;
    match differs && options.exit_code {
        true => Err(Failure::new("there are differences")),
        false => Ok(()),
    }
}

fn between(revision: u64, older: &[Rule], newer: &[Rule]) -> ApplyPolicyResponse {
    fn by_name(rules: &[Rule]) -> HashMap<&RuleName, &Rule> {
        rules.iter().map(|rule| (&rule.name, rule)).collect()
    }
    let text = |rule: Option<&&Rule>| rule.map(|rule| render(std::slice::from_ref(*rule))).unwrap_or_default();
    let (before, after) = (by_name(older), by_name(newer));
    let gone = older.iter().filter(|rule| !after.contains_key(&rule.name));
    let mut plan = ApplyPolicyResponse { revision, ..ApplyPolicyResponse::default() };
    for name in newer.iter().chain(gone).map(|rule| &rule.name) {
        let (before, after) = (before.get(name), after.get(name));
        if before == after {
            plan.unchanged += 1;
        } else {
            plan.changes.push(RuleChange { rule: name.to_string(), before: text(before), after: text(after) });
        }
    }
    plan
}

/// Shows a change before it is made. `ask` has the issuer plan, or do what it planned for that revision.
fn carry_out(
    options: &ChangeOptions,
    format: Format,
    ask: impl Fn(bool, Option<u64>) -> Result<ApplyPolicyResponse, Failure>,
) -> Result<(), Failure> {
    let plan = ask(true, None)?;
    let is_for_people = format == Format::Table;
    if options.dry_run || plan.changes.is_empty() {
        return show(&plan, format);
    }
    if is_for_people {
        show(&plan, format)?;
    }
    if !options.yes {
        confirm("apply this?")?;
    }
    let done = ask(false, Some(plan.revision))?;
    if is_for_people {
        return output::print_text(&format!("applied: the policy is at revision {}\n", done.revision));
    }
    show(&done, format)
}

#[derive(Serialize)]
struct Plan<'a> {
    revision: u64,
    changes: Vec<Change<'a>>,
    unchanged: u32,
}

#[derive(Serialize)]
struct Change<'a> {
    rule: &'a str,
    kind: &'static str,
    before: &'a str,
    after: &'a str,
}

fn show(plan: &ApplyPolicyResponse, format: Format) -> Result<(), Failure> {
    let changes = plan.changes.iter().map(|change| Change {
        rule: &change.rule,
        kind: kind(change).0,
        before: &change.before,
        after: &change.after,
    });
    match format {
        Format::Table => output::print_text(&for_people(plan)),
        Format::Json | Format::Yaml => {
            let plan = Plan { revision: plan.revision, changes: changes.collect(), unchanged: plan.unchanged };
            output::print_text(&output::serialized(format, &plan)?)
        }
    }
}

fn kind(change: &RuleChange) -> (&'static str, char) {
    match (change.before.is_empty(), change.after.is_empty()) {
        (true, _) => ("create", '+'),
        (false, true) => ("delete", '-'),
        (false, false) => ("update", '~'),
    }
}

fn for_people(plan: &ApplyPolicyResponse) -> String {
    if plan.changes.is_empty() {
        return format!("nothing changes: the policy is at revision {}\n", plan.revision);
    }
    let mut text = String::new();
    for change in &plan.changes {
        text.push_str(&format!("{} {}\n", kind(change).1, change.rule));
        let diff = TextDiff::from_lines(&change.before, &change.after);
        for line in diff.iter_all_changes().filter(|line| line.value().trim_end() != "rules:") {
            let sign = match line.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            text.push_str(&format!("  {sign} {}\n", line.value().trim_end()));
        }
    }
    let count = |wanted: &str| plan.changes.iter().filter(|change| kind(change).0 == wanted).count();
    text.push_str(&format!(
        "{} to create, {} to update, {} to delete, {} unchanged\n",
        count("create"),
        count("update"),
        count("delete"),
        plan.unchanged
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_sees_each_line_that_changes() {
        let rule = |ttl: &str| format!("rules:\n- name: a\n  ttl: {ttl}\n");
        let change = |before: &str, after: &str| RuleChange {
            rule: "a".to_owned(),
            before: before.to_owned(),
            after: after.to_owned(),
        };
        let plan = |changes| ApplyPolicyResponse { revision: 3, changes, unchanged: 2 };
        let told = for_people(&plan(vec![change(&rule("1h"), &rule("2h"))]));
        assert_eq!(
            told,
            "~ a\n    - name: a\n  -   ttl: 1h\n  +   ttl: 2h\n0 to create, 1 to update, 0 to delete, 2 unchanged\n"
        );
        assert!(for_people(&plan(vec![change("", &rule("1h"))])).starts_with("+ a\n  + - name: a\n"));
        assert!(for_people(&plan(vec![change(&rule("1h"), "")])).starts_with("- a\n  - - name: a\n"));
        assert_eq!(for_people(&plan(Vec::new())), "nothing changes: the policy is at revision 3\n");
    }
}
