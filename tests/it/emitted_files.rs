//! What is generated from the program is in the repository as the program would write it, and every public code has its page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regex::Regex;
use weft::authn::Code;
use weft::codes;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn generated_files_are_fresh() {
    let stale: Vec<_> = weft::cli::emit::files()
        .into_iter()
        .filter(|(path, bytes)| std::fs::read(root().join(path)).ok().as_ref() != Some(bytes))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(stale.is_empty(), "run `weft emit`; stale: {stale:?}");
}

#[test]
fn no_page_is_left_of_a_code_that_is_gone() {
    let there: BTreeSet<PathBuf> = std::fs::read_dir(root().join("docs/errors"))
        .unwrap()
        .map(|entry| PathBuf::from("docs/errors").join(entry.unwrap().file_name()))
        .collect();
    let generated = weft::cli::emit::files().into_iter().map(|(path, _)| path);
    let pages: BTreeSet<_> = generated.filter(|path| path.starts_with("docs/errors")).collect();
    assert_eq!(there, pages);
}

#[test]
fn codes_are_sorted_unique_and_say_something() {
    let names: Vec<_> = codes::ALL.iter().map(|code| code.code).collect();
    assert!(names.is_sorted());
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    let form = Regex::new("^[a-z]+(_[a-z]+)*$").unwrap();
    for code in codes::ALL {
        assert!(form.is_match(code.code), "{}", code.code);
        assert!((400..600).contains(&code.status), "{}", code.code);
        for sentence in [code.meaning, code.remedy] {
            assert!(
                sentence.ends_with('.') && sentence.len() > 8,
                "{}: {sentence}",
                code.code
            );
        }
    }
}

/// Every text that a source file uses as the code of an error that reaches callers, with the file.
fn used() -> BTreeMap<String, BTreeSet<String>> {
    let mut files = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                files.push(path);
            }
        }
    }
    // A constructor's code, a field, and whatever `fn code` of a `Coded` answers.
    let made = Regex::new(
        r#"(?:(?:ApiError|Self)::new\(\s*Kind::\w+,|(?:Error|Self)::(?:not_found|invalid|conflict|unavailable)\(|\bcode:)\s*"([a-z_]+)""#,
    )
    .unwrap();
    let answers = Regex::new(r"(?s)fn code\(&self\) -> &'static str \{(.*?)\n    \}").unwrap();
    let text = Regex::new(r#""([a-z_]+)""#).unwrap();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        if name == "src/codes.rs" {
            continue;
        }
        let source = std::fs::read_to_string(&file).unwrap();
        let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let mut add = |code: &str| {
            found.entry(code.to_owned()).or_default().insert(name.clone());
        };
        made.captures_iter(source).for_each(|found| add(&found[1]));
        for body in answers.captures_iter(source) {
            text.captures_iter(&body[1]).for_each(|found| add(&found[1]));
        }
    }
    for code in Code::ALL {
        found
            .entry(code.as_str().to_owned())
            .or_default()
            .insert("src/authn/refusal.rs".to_owned());
    }
    found
}

/// What the broker answers to user code; no caller of the API sees these.
const NOT_PUBLIC: [&str; 2] = ["not_available", "unavailable"];

#[test]
fn every_code_that_is_used_is_explained_and_the_reverse() {
    let used = used();
    assert!(used.len() > 40, "the codes were not found: {used:?}");
    let explained: BTreeSet<_> = codes::ALL.iter().map(|code| code.code).collect();
    let unexplained: Vec<_> = used
        .iter()
        .filter(|(code, _)| !explained.contains(code.as_str()) && !NOT_PUBLIC.contains(&code.as_str()))
        .collect();
    assert!(unexplained.is_empty(), "add them to src/codes.rs: {unexplained:?}");
    let unused: Vec<_> = explained.iter().filter(|code| !used.contains_key(**code)).collect();
    assert!(unused.is_empty(), "explained, and used by nothing: {unused:?}");
}

#[test]
fn the_status_of_a_code_is_that_of_its_kind() {
    for code in Code::ALL {
        let explained = codes::ALL
            .iter()
            .find(|explained| explained.code == code.as_str())
            .unwrap();
        let status = weft::http::problem::status(code.kind()).as_u16();
        assert_eq!(explained.status, status, "{}", explained.code);
    }
}
