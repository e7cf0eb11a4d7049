#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    admin: Option<Parsed<SocketAddr>>,
    workers: Option<Located<u16>>,
    #[serde(default)]
    listeners: Vec<Listener>,
    #[serde(default)]
    limits: Limits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listener {
    name: Located<String>,
    mode: Mode,
    #[serde(default)]
    allow: Vec<Located<Parsed<signet_identity::SpiffeIdPattern>>>,
    upstream: Option<Located<String>>,
    #[serde(default)]
    http2: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Inbound,
    Outbound,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Limits {
    header_bytes: Option<ByteSize>,
    header_timeout: Option<Duration>,
}

fn refusal(text: &str) -> String {
    parse::<File>(Path::new("gateway.yaml"), text).unwrap_err().to_string()
}

#[test]
fn a_sound_file_is_read_with_its_units_and_positions() {
    let file: File = parse(
        Path::new("gateway.yaml"),
        "admin: 127.0.0.1:9901\nworkers: 2\nlisteners:\n  - { name: in, mode: inbound, upstream: app, \
         allow: [\"spiffe://example.org/**\"] }\n  - { name: out, mode: outbound, http2: true }\n\
         limits: { header_bytes: 64KiB, header_timeout: 10s }\n",
    )
    .unwrap();
    assert_eq!(file.admin.unwrap().0, "127.0.0.1:9901".parse().unwrap());
    assert_eq!(*file.workers.unwrap(), 2);
    assert_eq!(file.limits.header_bytes, Some(ByteSize(65_536)));
    assert_eq!(file.limits.header_timeout.unwrap().0.as_secs(), 10);
    assert!(matches!(file.listeners[0].mode, Mode::Inbound));
    assert!(matches!(file.listeners[1].mode, Mode::Outbound));
    assert!(file.listeners[1].http2);
    assert_eq!(file.listeners[0].allow.len(), 1);
    let upstream = file.listeners[0].upstream.as_ref().unwrap();
    assert_eq!((upstream.line, upstream.column), (4, 42));
    let error = upstream.error(Path::new("gateway.yaml"), "no upstream `app`", "name one of: web");
    assert_eq!(error.to_string(), "gateway.yaml:4:42: no upstream `app`\nname one of: web");
    assert_eq!(*file.listeners[0].name, "in");
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_a_guess() {
    assert_eq!(
        refusal("listeners:\n  - name: orders\n    mode: inbound\n    upstrem: app\n"),
        "gateway.yaml:4:5: unknown key `upstrem` in listener `orders`\n\
         did you mean `upstream`? known keys: name, mode, allow, upstream, http2"
    );
    assert_eq!(
        refusal("limits: { header_byte: 1KiB }\n"),
        "gateway.yaml:1:11: unknown key `header_byte` in `limits`\n\
         did you mean `header_bytes`? known keys: header_bytes, header_timeout"
    );
    assert_eq!(
        refusal("workers: 1\nzzz: 1\n"),
        "gateway.yaml:2:1: unknown key `zzz`\nknown keys: admin, workers, listeners, limits"
    );
}

#[test]
fn a_wrong_value_is_refused_with_its_key_and_the_fix() {
    assert_eq!(
        refusal("limits:\n  header_timeout: 10\n"),
        "gateway.yaml:2:19: `header_timeout` in `limits`: `10`: no duration\n\
         write a whole number with its unit: `500ms`, `10s`, `5m`, `24h`, `7d`"
    );
    assert_eq!(
        refusal("listeners:\n  - { name: a, mode: inbond }\n"),
        "gateway.yaml:2:22: `mode` in listener `a`: unknown value `inbond`\n\
         did you mean `inbound`? known values: inbound, outbound"
    );
    assert!(refusal("workers: many\n").starts_with("gateway.yaml:1:10: `workers`: "), "{}", refusal("workers: many\n"));
    assert_eq!(
        refusal("admin: nowhere\n"),
        "gateway.yaml:1:8: `admin`: `nowhere`: invalid socket address syntax\n\
         write an IP address and a port, such as `127.0.0.1:8080` or `[::1]:8080`"
    );
    let truth = refusal("listeners:\n  - { name: a, mode: inbound, http2: yes }\n");
    assert_eq!(truth, "gateway.yaml:2:38: `http2` in listener `a`: not a truth value\nwrite `true` or `false`");
}

#[test]
fn a_malformed_pattern_is_refused_at_its_own_position() {
    let error =
        refusal("listeners:\n  - name: a\n    mode: inbound\n    allow: [\"spiffe://example.org/a\", \"http://b\"]\n");
    assert!(error.starts_with("gateway.yaml:4:39: `allow` in listener `a`: `http://b`: "), "{error}");
    assert!(error.contains("\nwrite a pattern, such as `spiffe://example.org/shop/*`"), "{error}");
}

#[test]
fn a_missing_or_repeated_key_is_refused() {
    assert_eq!(
        refusal("listeners:\n  - name: a\n"),
        "gateway.yaml:2:5: missing key `mode` in listener `a`\nadd `mode:` with its value"
    );
    assert_eq!(
        refusal("workers: 1\nworkers: 2\n"),
        "gateway.yaml:2:1: key `workers` stands twice\nkeep one of the two"
    );
}

#[test]
fn what_is_no_yaml_is_refused_with_its_position() {
    for text in ["workers: [1\n", "a: b: c\n", "workers: 1\n---\nworkers: 2\n", "<<: {}\n", "- 1\n"] {
        let error = refusal(text);
        assert!(error.starts_with("gateway.yaml:"), "{text:?}: {error}");
        assert!(error.contains('\n'), "{text:?} has no fix: {error}");
    }
}

#[test]
fn a_document_that_explodes_is_refused() {
    let pattern = format!("spiffe://example.org/{}", "a".repeat(1000));
    let listeners = |aliases: usize| {
        let first = format!("- {{ name: a, mode: inbound, allow: &all [{}] }}", vec![pattern.as_str(); 64].join(", "));
        format!("listeners:\n{first}\n{}", "- { name: b, mode: inbound, allow: *all }\n".repeat(aliases))
    };
    let file: File = parse(Path::new("gateway.yaml"), &listeners(10)).unwrap();
    assert_eq!(file.listeners[10].allow.len(), 64);
    let error = refusal(&listeners(100));
    assert!(error.starts_with("gateway.yaml:2:"), "at the alias, or what it stands for: {error}");
    assert!(error.contains("there is more in it than may be in one document\n"), "{error}");
    let empty = "- { name: a, mode: inbound, allow: &none [] }\n";
    let many = refusal(&format!("listeners:\n{empty}{}", empty.replace("&none []", "*none").repeat(1001)));
    assert!(many.contains("more anchors (`&`) or aliases (`*`) than may be here"), "{many}");
}

#[test]
fn anchors_and_aliases_are_refused_where_none_may_be() {
    let budget = Budget { aliases: 0, ..Budget::CONFIGURATION };
    let refusal = |text: &str| parse_within::<File>(Path::new("p.yaml"), text, &budget).unwrap_err().to_string();
    let told = "there are more anchors (`&`) or aliases (`*`) than may be here\nwrite out what they stand for";
    assert_eq!(refusal("limits: &a {}\n"), format!("p.yaml:1:12: {told}"));
    assert_eq!(refusal("workers: *a\n").lines().last().unwrap(), "check the YAML syntax around this place");
}

#[test]
fn an_unreadable_oversized_or_binary_file_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.yaml");
    let missing = load::<File>(&path).unwrap_err();
    assert!(missing.to_string().contains("not readable\ngive the path"), "{missing}");
    assert!(std::error::Error::source(&missing).is_some());

    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert_eq!(load::<File>(&path).unwrap_err().what(), "larger than 1 MiB");

    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert_eq!(load::<File>(&path).unwrap_err().what(), "not UTF-8 text");

    std::fs::write(&path, "").unwrap();
    load::<File>(&path).unwrap();
}

#[test]
fn a_relative_path_starts_at_the_folder_of_the_configuration() {
    assert_eq!(
        beside(Path::new("/etc/signet/gateway.yaml"), Path::new("roots.pem")),
        Path::new("/etc/signet/roots.pem")
    );
    assert_eq!(beside(Path::new("gateway.yaml"), Path::new("roots.pem")), Path::new("roots.pem"));
    assert_eq!(beside(Path::new("/etc/signet/gateway.yaml"), Path::new("/run/t")), Path::new("/run/t"));
}
