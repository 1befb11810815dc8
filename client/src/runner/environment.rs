//! The environment of a command: built from nothing, and without the variables by which an environment runs code.
//!
//! Deliberately not here: the gate's own environment, of which nothing but the home directory is passed on. Abuse case E08.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use approval::ByteString;

use super::executable::SEARCH;

/// Loaders, shells, interpreters, git and pagers run what these name: with one of them an approved `git log` is any program at all.
const HOOKS: &[&[u8]] = &[
    b"BASHOPTS",
    b"BASH_ENV",
    b"BASH_XTRACEFD",
    b"BROWSER",
    b"CDPATH",
    b"CLASSPATH",
    b"EDITOR",
    b"ENV",
    b"FPATH",
    b"GCONV_PATH",
    b"GIT_ASKPASS",
    b"GIT_EDITOR",
    b"GIT_EXEC_PATH",
    b"GIT_EXTERNAL_DIFF",
    b"GIT_PAGER",
    b"GIT_PROXY_COMMAND",
    b"GIT_SEQUENCE_EDITOR",
    b"GIT_TEMPLATE_DIR",
    b"GLIBC_TUNABLES",
    b"GLOBIGNORE",
    b"HOSTALIASES",
    b"IFS",
    b"JAVA_TOOL_OPTIONS",
    b"JDK_JAVA_OPTIONS",
    b"LESSCLOSE",
    b"LESSEDIT",
    b"LESSOPEN",
    b"LOCPATH",
    b"LUA_INIT",
    b"LUA_PATH",
    b"LUA_CPATH",
    b"MAKEFLAGS",
    b"MANPAGER",
    b"NLSPATH",
    b"NODE_OPTIONS",
    b"NODE_PATH",
    b"OPENSSL_CONF",
    b"OPENSSL_ENGINES",
    b"OPENSSL_MODULES",
    b"PAGER",
    b"PERL5DB",
    b"PERL5LIB",
    b"PERL5OPT",
    b"PERL5SHELL",
    b"PERLLIB",
    b"PHPRC",
    b"PHP_INI_SCAN_DIR",
    b"PROMPT_COMMAND",
    b"PS4",
    b"PYTHONBREAKPOINT",
    b"PYTHONEXECUTABLE",
    b"PYTHONHOME",
    b"PYTHONINSPECT",
    b"PYTHONPATH",
    b"PYTHONSTARTUP",
    b"PYTHONUSERBASE",
    b"RUBYLIB",
    b"RUBYOPT",
    b"RUSTC_WRAPPER",
    b"SHELLOPTS",
    b"SSH_ASKPASS",
    b"SUDO_ASKPASS",
    b"SUDO_EDITOR",
    b"TERMINFO",
    b"TERMCAP",
    b"VISUAL",
    b"ZDOTDIR",
    b"_JAVA_OPTIONS",
];

/// The same, for families of variables.
const HOOK_FAMILIES: &[&[u8]] = &[
    b"LD_",
    b"DYLD_",
    b"BASH_FUNC_",
    b"GIT_CONFIG",
    b"GIT_SSH",
    b"LUA_INIT_",
    b"LUA_PATH_",
    b"LUA_CPATH_",
];

/// Why a variable isn't given to a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// The variable makes programs run code that the approval doesn't show.
    #[error("{name} is refused: it makes a program run code that the approval doesn't show")]
    Hook {
        /// The variable's name.
        name: String,
    },
    /// A name that is empty or holds `=`: it would be read back as another.
    #[error("{name:?} can't be the name of a variable")]
    Name {
        /// The name.
        name: String,
    },
    /// The same name twice: programs differ in which one they believe.
    #[error("{name} is given twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// A `PATH` with an empty or relative folder: it means whatever lies in the working directory.
    #[error("PATH holds {folder:?}, which isn't an absolute folder")]
    Path {
        /// The folder.
        folder: String,
    },
}

/// What every command gets: `PATH` fixed, `LANG`, and the home directory of the gate's user. Sorted by name.
pub fn default_environment() -> Vec<(ByteString, ByteString)> {
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    let home = home.as_ref().map_or(&b"/"[..], |home| home.as_os_str().as_bytes());
    let pairs = [
        (&b"HOME"[..], home),
        (b"LANG", b"C.UTF-8"),
        (b"PATH", SEARCH.as_bytes()),
    ];
    // None of these holds a zero byte: two are constants, one came out of an environment.
    pairs
        .into_iter()
        .filter_map(|(name, value)| Some((ByteString::new(name).ok()?, ByteString::new(value).ok()?)))
        .collect()
}

/// The whole environment of a command: [`default_environment`] with what the asker wants on top. Sorted by name, as the request has it.
///
/// # Errors
/// If the asker wants a variable that would run code, or a malformed one: a refusal that is seen is better than a variable silently dropped.
pub fn environment(asked: &[(ByteString, ByteString)]) -> Result<Vec<(ByteString, ByteString)>, EnvironmentError> {
    check(asked)?;
    let mut all: BTreeMap<Vec<u8>, (ByteString, ByteString)> = BTreeMap::new();
    for (name, value) in default_environment().into_iter().chain(asked.iter().cloned()) {
        all.insert(name.as_bytes().to_vec(), (name, value));
    }
    Ok(all.into_values().collect())
}

/// Asked again right before running: the request could have been made by an older gate.
pub(super) fn check(environment: &[(ByteString, ByteString)]) -> Result<(), EnvironmentError> {
    let mut names = std::collections::BTreeSet::new();
    for (variable, value) in environment {
        let (bytes, name) = (
            variable.as_bytes(),
            String::from_utf8_lossy(variable.as_bytes()).into_owned(),
        );
        if bytes.is_empty() || bytes.contains(&b'=') {
            return Err(EnvironmentError::Name { name });
        }
        if HOOKS.contains(&bytes) || HOOK_FAMILIES.iter().any(|family| bytes.starts_with(family)) {
            return Err(EnvironmentError::Hook { name });
        }
        if !names.insert(bytes) {
            return Err(EnvironmentError::Twice { name });
        }
        let relative = |folder: &&[u8]| !folder.starts_with(b"/");
        if bytes == b"PATH"
            && let Some(folder) = value.as_bytes().split(|byte| *byte == b':').find(relative)
        {
            return Err(EnvironmentError::Path {
                folder: String::from_utf8_lossy(folder).into_owned(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    fn pair(name: &str, value: &str) -> (ByteString, ByteString) {
        (ByteString::new(name).unwrap(), ByteString::new(value).unwrap())
    }

    #[test]
    fn the_default_holds_three_variables_sorted_by_name() {
        let all = default_environment();
        let names: Vec<_> = all.iter().map(|(name, _)| name.as_bytes()).collect();
        assert_eq!(names, [&b"HOME"[..], b"LANG", b"PATH"]);
        assert_eq!(all[2].1.as_bytes(), b"/usr/local/bin:/usr/bin:/bin");
    }

    #[test]
    fn what_is_asked_for_comes_on_top_and_stays_sorted() {
        let all = environment(&[pair("TOKEN", "x"), pair("LANG", "C"), pair("A", "")]).unwrap();
        let expected = [
            pair("A", ""),
            default_environment()[0].clone(),
            pair("LANG", "C"),
            pair("PATH", SEARCH),
            pair("TOKEN", "x"),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn variables_that_run_code_are_refused() {
        for name in [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "LD_AUDIT",
            "BASH_ENV",
            "ENV",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "NODE_OPTIONS",
            "PERL5OPT",
            "PERL5LIB",
            "RUBYOPT",
            "GIT_EXEC_PATH",
            "GIT_EXTERNAL_DIFF",
            "GIT_SSH",
            "GIT_SSH_COMMAND",
            "GIT_CONFIG_COUNT",
            "GIT_CONFIG_KEY_0",
            "PAGER",
            "LESSOPEN",
            "IFS",
            "BASH_FUNC_ls%%",
            "GLIBC_TUNABLES",
            "PROMPT_COMMAND",
        ] {
            assert!(
                matches!(environment(&[pair(name, "x")]), Err(EnvironmentError::Hook { .. })),
                "{name}"
            );
        }
    }

    #[test]
    fn malformed_variables_are_refused() {
        assert!(matches!(
            environment(&[pair("", "x")]),
            Err(EnvironmentError::Name { .. })
        ));
        assert!(matches!(
            environment(&[pair("A=B", "x")]),
            Err(EnvironmentError::Name { .. })
        ));
        assert!(matches!(
            environment(&[pair("A", "x"), pair("A", "y")]),
            Err(EnvironmentError::Twice { .. })
        ));
    }

    #[test]
    fn a_path_that_means_the_working_directory_is_refused() {
        for path in ["", ".", "/bin:", ":/bin", "/bin::/usr/bin", "bin"] {
            assert!(
                matches!(environment(&[pair("PATH", path)]), Err(EnvironmentError::Path { .. })),
                "{path:?}"
            );
        }
        assert!(environment(&[pair("PATH", "/opt/bin:/bin")]).is_ok());
    }
}
