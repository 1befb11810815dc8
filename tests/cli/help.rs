//! The help of every command, as it was when somebody last looked at it: `help/<words>.txt`. After a wanted change write them anew with
//! `COUNTERSIGN_BLESS=1 cargo test -p countersign-tests --test terminal help` and read the difference.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::site::{command, ended};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cli/help");

/// The help of a command and of all below it, as they name each other.
fn collect(words: &[&str], folder: &Path, found: &mut BTreeMap<String, String>) {
    let help = ended(command(words[0], folder).args(&words[1..]).arg("--help"));
    assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{words:?}");
    let text = help.text().to_owned();
    let listed = text
        .split_once("Commands:\n")
        .map_or("", |(_, rest)| rest.split("\n\n").next().unwrap_or_default());
    let subcommands = listed
        .lines()
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    for name in subcommands
        .filter_map(|line| line.split(' ').next())
        .filter(|name| *name != "help")
    {
        collect(&[words, &[name]].concat(), folder, found);
    }
    found.insert(format!("{}.txt", words.join("-")), text);
}

#[test]
fn the_help_of_every_command_is_as_it_was_read() {
    let folder = TempDir::new().unwrap();
    let mut found = BTreeMap::new();
    collect(&["countersign"], folder.path(), &mut found);
    collect(&["countersign-relay"], folder.path(), &mut found);
    assert!(found.len() > 25, "{:?}", found.keys());
    if std::env::var_os("COUNTERSIGN_BLESS").is_some() {
        fs::remove_dir_all(GOLDEN).unwrap();
        fs::create_dir(GOLDEN).unwrap();
        found
            .iter()
            .for_each(|(name, text)| fs::write(Path::new(GOLDEN).join(name), text).unwrap());
    }
    let mut kept: Vec<String> = fs::read_dir(GOLDEN)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    kept.sort();
    assert_eq!(kept, found.keys().cloned().collect::<Vec<_>>());
    for (name, text) in found {
        assert_eq!(
            fs::read_to_string(Path::new(GOLDEN).join(&name)).unwrap(),
            text,
            "{name}"
        );
    }
}

#[test]
fn a_group_of_commands_alone_shows_its_help() {
    let folder = TempDir::new().unwrap();
    for words in [&[][..], &["gate"], &["roster"], &["audit"]] {
        let said = ended(command("countersign", folder.path()).args(words));
        assert_eq!((said.code, said.text()), (2, ""), "{words:?}");
        assert!(said.stderr.contains("Commands:"), "{words:?}: {}", said.stderr);
    }
}
