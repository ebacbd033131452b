//! The golden corpus of graphs: what is good has no finding, and what is broken has exactly those that stand beside it, with
//! pointer, line and column. Other readers of graphs are to be tested with the same files.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use weft::definition::{Catalog, Offer, check_against, place_of, read_graph};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/graphs")
}

fn files(kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().join(kind)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files
}

/// A line for each finding: line and column, pointer, code, message, hint.
fn findings(text: &str, declared: &Catalog) -> String {
    let functions = declared.nodes.iter().chain(&declared.workflows);
    let functions = functions.map(|(name, declared)| (name.as_str(), declared)).collect();
    let workflows = declared.workflows.iter();
    let workflows = workflows
        .map(|(name, declared)| (name.as_str(), declared.parameters.as_slice()))
        .collect();
    let mut read = read_graph(text);
    let mut found = std::mem::take(&mut read.findings);
    let offer = Offer {
        functions: &functions,
        workflows: &workflows,
        providers: &declared.data_providers,
    };
    found.extend(check_against(&read, &offer));
    let mut found: Vec<_> = found
        .into_iter()
        .map(|finding| (place_of(text, &finding.pointer), finding))
        .collect();
    found.sort_by_key(|(place, _)| *place);
    let mut lines = String::new();
    for ((line, column), finding) in found {
        let hint = finding.hint.expect("every finding has a hint");
        writeln!(
            lines,
            "{line}:{column} {} {}\n    {}\n    {hint}",
            if finding.pointer.is_empty() {
                "/"
            } else {
                &finding.pointer
            },
            finding.code,
            finding.message
        )
        .unwrap();
    }
    lines
}

fn workspace() -> Catalog {
    let text = fs::read_to_string(folder().join("workspace.json")).unwrap();
    let modules: Vec<Value> = serde_json::from_str(&text).unwrap();
    let catalog = Catalog::from_description("sha256:0", &modules, Vec::new(), 1, 0.0);
    assert_eq!(catalog.findings, []);
    catalog
}

#[test]
fn good_graphs_have_no_findings() {
    let declared = workspace();
    let good = files("good");
    assert!(good.len() >= 3);
    for path in good {
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(findings(&text, &declared), "", "{}", path.display());
    }
}

#[test]
fn what_is_written_reads_as_the_same_graph() {
    for path in files("good") {
        let read = read_graph(&fs::read_to_string(&path).unwrap());
        let text = serde_json::to_string(&read.graph).unwrap();
        let again = read_graph(&text);
        assert_eq!(again.findings, [], "{}\n{text}", path.display());
        assert_eq!(again.graph, read.graph, "{}", path.display());
        assert_eq!(serde_json::to_string(&again.graph).unwrap(), text, "{}", path.display());
    }
}

#[test]
fn broken_graphs_have_exactly_their_findings() {
    let declared = workspace();
    let broken = files("broken");
    assert!(broken.len() >= 30, "{}", broken.len());
    let mut wrong = String::new();
    for path in broken {
        let found = findings(&fs::read_to_string(&path).unwrap(), &declared);
        assert_ne!(found, "", "{} has no finding", path.display());
        let expected = fs::read_to_string(path.with_extension("findings")).unwrap_or_default();
        if found != expected {
            writeln!(wrong, "--- {} has\n{found}--- expected\n{expected}", path.display()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// `cargo test --test it bless_graphs -- --ignored`, and then read what has changed.
#[test]
#[ignore = "writes what the test above compares with"]
fn bless_graphs() {
    let declared = workspace();
    for path in files("broken") {
        let found = findings(&fs::read_to_string(&path).unwrap(), &declared);
        fs::write(path.with_extension("findings"), found).unwrap();
    }
}
