//! Reports of the audit log of a running issuer: read by Python's csv and json, made again of a copy, and told apart from whatever was
//! tampered with.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use signet_tests::auditor::{Auditor, ID, joined, url_of, wait_until_published};
use signet_tests::clock::later;
use signet_tests::wait::until;
use signet_tests::{GrowingLog, Issuer, pages, program, secs};
use tempfile::TempDir;
use time::OffsetDateTime;

/// A spreadsheet's way of reading: every cell a text.
const READ_CSV: &str = "import csv,json,sys; print(json.dumps(list(csv.DictReader(open(sys.argv[1], newline='')))))";
const READ_JSON: &str = "import json,sys; print(json.dumps(json.load(open(sys.argv[1]))))";

fn python(program_text: &str, path: &Path) -> Vec<Value> {
    let output = Command::new(program::python()).args(["-c", program_text]).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// By the issuer, of all until now.
fn report(issuer: &Issuer, auditor: &Auditor, name: &str) -> PathBuf {
    wait_until_published(issuer);
    let path = auditor.at(name);
    let told = issuer.operate_json(&["audit", "report", "--from", "2026-01-01", "--out", text(&path)]);
    assert_eq!(told["file"], text(&path));
    path
}

/// An issuer that issued three certificates and revoked one.
fn busy_issuer(folder: &Path) -> (Issuer, String) {
    let issuer = Issuer::start(folder, "example.org", secs(3600));
    let mut workload = joined(&issuer);
    workload.renew().unwrap();
    let serial = workload.svid().serial();
    issuer.operate(&["revoke", "serial", &serial, "--reason", "key-compromise", "--comment", "stolen", "--yes"]);
    workload.renew().unwrap_err();
    (issuer, serial)
}

#[test]
fn a_report_has_what_was_issued_and_revoked_in_all_formats_and_is_verified() {
    let folder = TempDir::new().unwrap();
    let (issuer, serial) = busy_issuer(folder.path());
    let auditor = Auditor::of(&issuer);

    let csv = report(&issuer, &auditor, "report.csv");
    let rows = python(READ_CSV, &csv);
    // The issuer's own, the first, and its successor.
    assert_eq!(rows.len(), 3, "{rows:?}");
    let last = &rows[2];
    let plain = |row: &Value| row["serial"].as_str().unwrap().replace(':', "").to_lowercase();
    assert_eq!(
        (plain(last), &last["spiffeId"], &last["revocationReason"]),
        (serial.to_lowercase(), &ID.into(), &"KEY_COMPROMISE".into())
    );
    assert_eq!(
        (&last["requester"], &last["attestation"], &last["template"]),
        (&ID.into(), &"x509_svid".into(), &"workload".into())
    );
    assert!(rows[..2].iter().all(|row| row["revokedAt"] == "" && row["notAfter"].as_str().unwrap().ends_with("+0000")));

    let json = report(&issuer, &auditor, "report.json");
    let same = python(READ_JSON, &json);
    for (of_csv, of_json) in rows.iter().zip(&same) {
        for (name, value) in of_json.as_object().unwrap() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            assert_eq!(of_csv[name], value, "{name}");
        }
    }
    let html = report(&issuer, &auditor, "report.html");
    let page = fs::read_to_string(&html).unwrap();
    assert!(page.contains("<b>3</b><span>certificates issued</span>") && page.contains("KEY_COMPROMISE"), "{page}");

    // Each is what the log says, at its web address and in a copy; and what is made of a copy is the same.
    let copy = auditor.copy(&issuer, "copy");
    for path in [&csv, &json, &html] {
        for log in [url_of(&issuer).as_str(), text(&copy)] {
            let told = auditor.good(&["verify-report", text(path), log]);
            assert_eq!(told["certificates"], 3, "{told}");
        }
    }
    let again = auditor.at("again.csv");
    auditor.good(&["report", text(&copy), "--to", "2100-01-01", "--from", "2026-01-01", "--out", text(&again)]);
    assert_eq!(fs::read(&again).unwrap(), fs::read(&csv).unwrap());
    // Nothing is overwritten.
    let refused = auditor.refused(&["report", text(&copy), "--out", text(&again)]);
    assert!(refused.contains("name a file that is not there yet"), "{refused}");

    // A proof by the serial number as it stands in the report.
    let proof = auditor.at("proof");
    let with_colons = last["serial"].as_str().unwrap();
    assert!(auditor.signet(&["prove", with_colons, "--log", text(&copy), "--out", text(&proof)]).0);
}

#[test]
fn what_was_tampered_with_is_told_apart() {
    let folder = TempDir::new().unwrap();
    let (issuer, _) = busy_issuer(folder.path());
    let auditor = Auditor::of(&issuer);
    let csv = report(&issuer, &auditor, "report.csv");
    let html = report(&issuer, &auditor, "report.html");
    let copy = auditor.copy(&issuer, "copy");
    let verify = |path: &Path| auditor.refused(&["verify-report", text(path), text(&copy)]);
    let signature = fs::read(csv.with_extension("csv.sig")).unwrap();
    let other = |name: &str, report: &str, signature: &[u8]| {
        let path = auditor.at(name);
        fs::write(&path, report).unwrap();
        fs::write(path.with_extension("csv.sig"), signature).unwrap();
        path
    };
    let good = fs::read_to_string(&csv).unwrap();

    // The report: a row changed, a row left out, one put in, its end cut off.
    let lines: Vec<&str> = good.split_inclusive('\n').collect();
    for (name, changed, line) in [
        ("changed.csv", good.replace("KEY_COMPROMISE", "SUPERSEDED"), 4),
        ("without.csv", [lines[0], lines[1], lines[3]].concat(), 3),
        ("more.csv", format!("{good}{}", lines[3]), 5),
        ("cut.csv", good[..good.len() - 5].to_owned(), 4),
    ] {
        let refused = verify(&other(name, &changed, &signature));
        let told = format!("it is not what the issuer signed: line {line}");
        assert!(refused.contains(&told), "{name}: {refused}");
    }
    // The signature: of somebody else, of another report, none.
    let text_of_it = String::from_utf8(signature.clone()).unwrap();
    let refused = verify(&other("forged.csv", &good, text_of_it.replace("rows 3", "rows 2").as_bytes()));
    assert!(refused.contains("it is not signed by the key of"), "{refused}");
    let refused = verify(&other("another.csv", &good, &fs::read(html.with_extension("html.sig")).unwrap()));
    assert!(refused.contains("it is not what the issuer signed: line 1"), "{refused}");
    fs::remove_file(auditor.at("cut.csv.sig")).unwrap();
    let refused = verify(&auditor.at("cut.csv"));
    assert!(refused.contains("a report without it is checked by making it again"), "{refused}");

    // The log: one that is shorter, one of another issuer, one that was changed.
    let elsewhere = TempDir::new().unwrap();
    let (another, _) = busy_issuer(elsewhere.path());
    wait_until_published(&another);
    let refused = auditor.refused(&["verify-report", text(&csv), &url_of(&another)]);
    assert!(refused.contains("the checkpoint: it is of the log"), "{refused}");
    joined(&issuer);
    let later = report(&issuer, &auditor, "later.csv");
    let refused = verify(&later);
    assert!(refused.contains("entries, and the report was made of"), "{refused}");
    let entries = fs::read_dir(copy.join("tile/entries/000.p")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&entries).unwrap();
    // In the first entry, which is in any report.
    bytes[10] ^= 1;
    fs::write(&entries, bytes).unwrap();
    let refused = verify(&csv);
    assert!(refused.contains("this log cannot be relied on") && refused.contains("was changed"), "{refused}");
}

#[test]
fn no_report_is_signed_of_a_time_that_is_not_over() {
    let folder = TempDir::new().unwrap();
    let issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    wait_until_published(&issuer);
    let tomorrow = OffsetDateTime::now_utc().date().next_day().unwrap().to_string();
    let output = Command::new(program::ours("signet"))
        .args(["audit", "report", "--issuer", text(&issuer.socket), "--to", &tomorrow])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("the time to report is not over"), "{told}");

    // What is made of all until now stays true, whatever comes.
    let auditor = Auditor::of(&issuer);
    let csv = report(&issuer, &auditor, "report.csv");
    joined(&issuer);
    wait_until_published(&issuer);
    auditor.good(&["verify-report", text(&csv), &url_of(&issuer)]);
}

#[test]
fn a_signed_report_of_a_time_that_was_not_over_is_refused_once_something_came_of_that_time() {
    let folder = TempDir::new().unwrap();
    let mut log = GrowingLog::new(folder.path());
    let entry = |time: &str| format!(r#"{{"v":1,"time":"{time}","act":"started","software":"1"}}"#);
    let auditor = Auditor::with(folder.path().join("log.key.pub"));
    let (early, whole) = (auditor.at("early.csv"), auditor.at("whole.csv"));
    log.report("2026-10-01", "2026-11-01", &early);
    let path = log.path().to_owned();
    let good = |report: &Path| auditor.good(&["verify-report", text(report), text(&path)]);
    good(&early);
    // What is of other times is no matter.
    log.grow(&[entry("2026-09-30T23:59:59.9Z"), entry("2026-11-01T00:00:00Z")]);
    good(&early);
    log.grow(&[entry("2026-10-01T00:00:00Z"), entry("2026-10-31T23:59:59.999999Z")]);
    let refused = auditor.refused(&["verify-report", text(&early), text(&path)]);
    assert!(refused.contains("made before its time was over: 2 entries of that time"), "{refused}");
    log.report("2026-10-01", "2026-11-01", &whole);
    log.grow(&[entry("2026-11-02T00:00:00Z")]);
    good(&whole);
    // Of which time it is, nobody knows.
    log.grow(&[entry("tomorrow")]);
    let refused = auditor.refused(&["verify-report", text(&whole), text(&path)]);
    assert!(refused.contains("made before its time was over: 1 entry of that time"), "{refused}");
    auditor.both_refuse(log.path(), &format!("entry {} was logged so, and is no entry", log.size() - 1));
}

#[test]
fn nobody_has_a_report_who_may_not_and_what_is_no_time_is_refused() {
    let folder = TempDir::new().unwrap();
    let issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    let refused = |words: &[&str]| {
        let output = Command::new(program::ours("signet")).args(["audit", "report"]).args(words).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let socket = text(&issuer.socket);
    let told = refused(&["--issuer", socket, "--from", "2026-02-01", "--to", "2026-01-01"]);
    assert!(told.contains("it has to end after that"), "{told}");
    assert!(refused(&["--issuer", socket, "--from", "yesterday"]).contains("it is neither a date"), "");
    assert!(refused(&["--issuer", socket, "--format", "pdf"]).contains("a report is csv, json or html"), "");
    assert!(refused(&["--issuer", "/nowhere"]).contains("cannot reach the issuer"), "");
}

/// All files of a folder, by their names, with what is in them. What is about to get its name is none yet.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let names =
        fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let whole = names.filter(|name| !name.contains('#'));
    whole.filter_map(|name| Some((name.clone(), fs::read(folder.join(name)).ok()?))).collect()
}

#[test]
fn each_hour_that_has_ended_has_its_reports_in_the_folder_also_after_both_were_away() {
    let folder = TempDir::new().unwrap();
    let to = folder.path().join("pki");
    let reports = format!(
        "audit: {{ reports: {{ every: 1h, formats: [csv, json, html], to: {{ url: 'file://{}' }} }} }}\n",
        to.display()
    );
    let mut issuer = Issuer::start_with(folder.path(), "example.org", secs(3600), &reports);
    let auditor = Auditor::of(&issuer);
    let serial = joined(&issuer).svid().serial();
    wait_until_published(&issuer);
    issuer.process.kill();
    // A file is in its place at first.
    fs::write(&to, "").unwrap();
    let clock = later(folder.path(), 4 * secs(3600));
    let start = |issuer: &mut Issuer| {
        issuer.process.start_again_with("LD_PRELOAD", clock.to_str().unwrap());
        issuer.wait_until_ready();
        wait_until_published(issuer);
    };
    start(&mut issuer);
    issuer.process.wait_for_line_within("a report is not there yet", secs(30));
    assert!(issuer.admin.sum("signet_audit_report_failures_total", &[]) > 0.0);
    fs::remove_file(&to).unwrap();

    let origin = auditor.key().split('+').next().unwrap().replace('/', "_");
    let put = to.join("audit-report").join(origin);
    // The hour in which all was issued, and two or three that are empty.
    until("they are there", secs(90), || files(&put).len() >= 3 * 3 * 2);
    let until_when = |issuer: &Issuer| issuer.admin.sum("signet_audit_reported_until_timestamp_seconds", &[]);
    until("that is told", secs(30), || until_when(&issuer) > 0.0);
    let found = files(&put);
    assert!(found.keys().all(|name| found.contains_key(&format!("{}.sig", name.trim_end_matches(".sig")))));
    let copy = auditor.copy(&issuer, "copy");
    for name in found.keys().filter(|name| !name.ends_with(".sig")) {
        auditor.good(&["verify-report", text(&put.join(name)), text(&copy)]);
    }
    let first = found.keys().find(|name| name.ends_with(".csv")).unwrap();
    let rows = python(READ_CSV, &put.join(first));
    let plain = |row: &Value| row["serial"].as_str().unwrap().replace(':', "").to_lowercase();
    assert!(rows.iter().any(|row| plain(row) == serial), "{rows:?}");
    assert!(!fs::exists(auditor.key_file.with_file_name("report.new")).unwrap());

    // What is there is not made again; what only has the name of a signature is none, also before a time that has all.
    issuer.process.kill();
    fs::write(put.join(first), "as it was").unwrap();
    let others: Vec<&String> = found.keys().filter(|name| name.ends_with(".json")).collect();
    let signature = |name: &str| put.join(format!("{name}.sig"));
    fs::write(signature(others[0]), "anything").unwrap();
    fs::copy(signature(&others[0].replace(".json", ".html")), signature(others[1])).unwrap();
    let page = put.join(others[0].replace(".json", ".html"));
    fs::remove_file(&page).unwrap();
    start(&mut issuer);
    until("it has looked", secs(30), || until_when(&issuer) > 0.0);
    assert_eq!(fs::read(put.join(first)).unwrap(), b"as it was");
    for made in [&put.join(others[0]), &put.join(others[1]), &page] {
        auditor.good(&["verify-report", text(made), text(&copy)]);
    }

    // Nor is one that was made before its time was over, by a clock that was ahead.
    issuer.process.kill();
    issuer.process.start_again_with("LD_PRELOAD", "");
    issuer.wait_until_ready();
    let serial = joined(&issuer).svid().serial();
    wait_until_published(&issuer);
    issuer.process.kill();
    start(&mut issuer);
    let has_it = || {
        let tables = found.keys().filter(|name| name.ends_with(".csv"));
        tables.flat_map(|name| python(READ_CSV, &put.join(name))).any(|row| plain(&row) == serial)
    };
    until("it is made again, with what came", secs(60), has_it);
}

/// In the page's order: what it shows of other machines is on this one.
#[test]
fn each_command_of_the_page_works() {
    let folder = TempDir::new().unwrap();
    let (issuer, _) = busy_issuer(folder.path());
    let auditor = Auditor::of(&issuer);
    wait_until_published(&issuer);
    let here = auditor.at("here");
    fs::create_dir(&here).unwrap();
    let socket = folder.path().join("issuer-admin.sock");
    let copy = auditor.copy(&issuer, "copy");
    let is_there = [
        ("https://issuer.example.org/audit", url_of(&issuer)),
        ("/srv/audit", copy.display().to_string()),
        ("log.key.pub", auditor.key_file.display().to_string()),
    ];
    let typed = pages::typed("reports.md");
    assert!(typed.len() > 3, "{typed:?}");
    for line in typed {
        let line = is_there.iter().fold(line, |line, (shown, real)| line.replace(shown, real));
        pages::run(&line, &here, &[("SIGNET_ISSUER", &socket)]);
    }
    assert!(here.join("october.html").exists() && here.join("october.csv.sig").exists());
}
