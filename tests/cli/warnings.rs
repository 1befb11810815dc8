//! What is no error in a policy and may still not be what its writer meant is said wherever a policy is read from a file.

use super::site::Site;

/// Whoever wrote this meant every push.
const POLICY: &str = "[[rule]]\neffect = \"deny\"\ncommand = [\"git\", \"push\"]\n";

const WARNING: &str = "line 1: this denies exactly these arguments; end it with { rest = true } for whatever follows";

#[test]
fn a_policy_that_may_not_mean_what_it_says_is_warned_of() {
    let site = Site::with(&["alice"]);
    std::fs::write(site.path("odd.toml"), POLICY).unwrap();
    std::fs::write(
        site.path("plain.toml"),
        POLICY.replace("\"push\"", "\"push\", { rest = true }"),
    )
    .unwrap();
    let explain = ["policy", "explain", "--policy", "FILE", "--", "ls"];
    for arguments in [
        &["policy", "check", "FILE"][..],
        &explain,
        &["policy", "propose", "FILE"],
    ] {
        let of = |file: &str| -> Vec<String> {
            let named = arguments.iter().map(|word| word.replace("FILE", file));
            named.collect()
        };
        let said = |file: &str| {
            let words = of(file);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let said = site.gate(&words);
            assert_eq!(said.code, 0, "{words:?}: {said:?}");
            said
        };
        let odd = said("odd.toml");
        assert!(
            odd.stderr.contains(&format!("warning: {WARNING}\n")),
            "{arguments:?}: {odd:?}"
        );
        let plain = said("plain.toml");
        assert!(!plain.stderr.contains("warning: "), "{arguments:?}: {plain:?}");
    }
    for arguments in [
        &["policy", "check", "odd.toml"][..],
        &["policy", "explain", "--policy", "odd.toml", "--", "ls"],
    ] {
        let said = site.gate(&[&["--json"], arguments].concat());
        let value: serde_json::Value = serde_json::from_str(said.text()).unwrap();
        assert_eq!(value["warnings"], serde_json::json!([WARNING]), "{said:?}");
    }
}
