//! Which modules restricted code may import where nobody says otherwise, and what lists of modules mean together.
//!
//! `docs/modules.md` is this list printed. It is a signpost and a first fence: what keeps restricted code from files, network
//! and other processes is the kernel.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::ModuleRules;

macro_rules! modules {
    ($($heading:literal: $($name:literal)+;)+) => {
        /// The modules, under what they are for.
        pub const RESTRICTED: &[(&str, &[&str])] = &[$(($heading, &[$($name),+])),+];
    };
}

modules! {
    "Text": "string" "re" "textwrap" "unicodedata" "difflib" "html" "html.parser" "html.entities" "stringprep" "gettext";
    "Numbers": "math" "cmath" "decimal" "fractions" "numbers" "statistics" "random";
    "Dates and times": "datetime" "calendar" "time" "zoneinfo";
    "Data structures and types": "collections" "heapq" "bisect" "array" "enum" "dataclasses" "typing" "types" "abc" "copy" "graphlib" "uuid";
    "Functions and iteration": "itertools" "functools" "operator" "contextlib" "asyncio";
    "Formats": "json" "csv" "base64" "binascii" "struct" "quopri" "xml.etree.ElementTree" "urllib.parse" "email.utils" "colorsys" "ipaddress" "io" "pprint" "reprlib";
    "Digests and compression": "hashlib" "hmac" "secrets" "zlib";
    "Errors and the language": "__future__" "traceback" "warnings";
}

/// The default list, sorted.
#[must_use]
pub fn restricted() -> Vec<String> {
    let names = RESTRICTED.iter().flat_map(|(_, names)| names.iter());
    names
        .map(|name| (*name).to_owned())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// Whether a listed name covers a module: itself, or one below it.
#[must_use]
pub fn covers(listed: &str, module: &str) -> bool {
    module
        .strip_prefix(listed)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a text can name a module: Python identifiers with `.` between them, at most 200 characters.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let identifier = |part: &str| {
        part.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    text.len() <= 200 && text.split('.').all(identifier)
}

fn smallest(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let names: BTreeSet<String> = names.into_iter().collect();
    let covered = |one: &String| names.iter().any(|other| other != one && covers(other, one));
    names.iter().filter(|one| !covered(one)).cloned().collect()
}

/// What two lists both cover, as the shortest list, sorted.
#[must_use]
pub fn meet(a: &[String], b: &[String]) -> Vec<String> {
    let both = |a: &String, b: &String| {
        if covers(a, b) {
            Some(b.clone())
        } else {
            covers(b, a).then(|| a.clone())
        }
    };
    smallest(a.iter().flat_map(|a| b.iter().filter_map(move |b| both(a, b))))
}

impl ModuleRules {
    /// What both rules let through.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        Self {
            allow: match (&self.allow, &other.allow) {
                (None, None) => None,
                (Some(list), None) | (None, Some(list)) => Some(smallest(list.iter().cloned())),
                (Some(a), Some(b)) => Some(meet(a, b)),
            },
            deny: smallest(self.deny.iter().chain(&other.deny).cloned()),
        }
    }

    /// Whether a module may be imported.
    #[must_use]
    pub fn admit(&self, module: &str) -> bool {
        let listed = |list: &[String]| list.iter().any(|name| covers(name, module));
        self.allow.as_deref().is_none_or(listed) && !listed(&self.deny)
    }
}

/// The list as a document.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "# Modules of restricted code\n\n\
         Code that is not trusted may import these modules of Python's standard library, `weft`, and the modules of its own \
         bundle. A name covers everything below it. An installation sets another list with `restrictedModules` in its policy, \
         and further rules for all code with `modules`: [policies.md](policies.md).\n\n",
    );
    for (heading, names) in RESTRICTED {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(out, "- **{heading}**: {}.", names.join(", "));
    }
    out.push_str(
        "\n## What the rule applies to\n\n\
         - Imports that code of the bundle asks for: statements, `__import__`, `importlib`, wherever in the bundle they stand. \
         Who asks is decided by the frame that the import comes from.\n\
         - Not imports that a listed module makes itself: `json` needs `codecs`, `random` needs `os`, and they get them.\n\
         - Parents: `import html.parser` binds `html`, and that is no import of `html`'s other parts. Where only `urllib.parse` is \
         listed, `import urllib.request` is refused.\n\n\
         ## What it is not\n\n\
         It is no wall. A listed module holds others as attributes (`random._os`), and whoever looks for them finds them. What \
         such code could do with `os` or `socket` is refused by the kernel, in every posture in which restricted code is run. The \
         list is there so that an author learns at the first import, with a sentence, what the code will not get.\n\n\
         `io` is listed for `StringIO` and `BytesIO`; its `open` is the built-in one, which the kernel answers.\n\n\
         Left out on purpose: whatever opens files, processes, sockets or other interpreters (`os`, `sys`, `subprocess`, \
         `socket`, `ssl`, `http`, `urllib.request`, `pathlib`, `shutil`, `tempfile`, `multiprocessing`, `threading`, `signal`, \
         `ctypes`), whatever loads code (`importlib`, `runpy`, `pickle`, `marshal`, `shelve`, `code`, `ast`), and whatever looks \
         into the interpreter (`inspect`, `gc`, `builtins`).\n",
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_the_list_opens_a_door_of_its_own() {
        let list = restricted();
        assert!(list.iter().all(|name| is_name(name)));
        let rules = ModuleRules {
            allow: Some(list),
            deny: Vec::new(),
        };
        for refused in [
            "os",
            "sys",
            "subprocess",
            "socket",
            "ctypes",
            "importlib",
            "pickle",
            "multiprocessing",
            "threading",
            "ssl",
            "http",
            "http.client",
            "urllib",
            "urllib.request",
            "pathlib",
            "shutil",
            "tempfile",
            "signal",
            "marshal",
            "shelve",
            "runpy",
            "code",
            "inspect",
            "gc",
            "builtins",
            "posix",
            "_socket",
            "pty",
            "mmap",
            "resource",
            "sqlite3",
            "webbrowser",
            "dbm",
        ] {
            assert!(!rules.admit(refused), "{refused}");
        }
        for useful in [
            "json",
            "json.decoder",
            "re",
            "collections.abc",
            "datetime",
            "urllib.parse",
            "email.utils",
        ] {
            assert!(rules.admit(useful), "{useful}");
        }
    }

    #[test]
    fn rules_meet() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            meet(&names(&["xml", "json"]), &names(&["xml.etree", "re"])),
            ["xml.etree"]
        );
        assert_eq!(meet(&names(&["jsonx"]), &names(&["json"])), [""; 0]);
        let rules = ModuleRules {
            allow: Some(names(&["xml", "xml.etree"])),
            deny: names(&["xml.sax"]),
        };
        let met = rules.meet(&ModuleRules::default());
        assert_eq!((met.allow.unwrap(), met.deny), (names(&["xml"]), names(&["xml.sax"])));
        assert!(rules.admit("xml.dom") && !rules.admit("xml.sax.handler") && !rules.admit("json"));
        for bad in ["", "a..b", ".a", "a.", "a-b", "a b", "1a"] {
            assert!(!is_name(bad), "`{bad}`");
        }
    }
}
