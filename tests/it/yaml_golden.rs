//! The golden corpus of YAML workflows: what is good has no finding and reads as the same graph again when it is written; what is
//! broken has exactly the findings that stand beside it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use weft::definition::{Catalog, read_graph, read_yaml, to_yaml};

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder)
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(golden(folder)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

fn workspace() -> Catalog {
    let text = fs::read_to_string(golden("graphs/workspace.json")).unwrap();
    let modules: Vec<Value> = serde_json::from_str(&text).unwrap();
    Catalog::from_description("sha256:0", &modules, Vec::new(), 1, 0.0)
}

/// A line for each finding: line and column, code, message, hint.
fn findings(text: &str) -> String {
    let files = vec![("f.yaml".to_owned(), text.to_owned())];
    let catalog = workspace().with_graphs(files, Vec::new());
    let mut lines = String::new();
    for finding in catalog.findings {
        let hint = finding.hint.unwrap_or_else(|| panic!("no hint: {}", finding.message));
        let place = finding.pointer.strip_prefix("f.yaml:").unwrap();
        writeln!(lines, "{place} {}\n    {}\n    {hint}", finding.code, finding.message).unwrap();
    }
    lines
}

#[test]
fn good_files_have_no_findings() {
    let good = files("yaml/good", "yaml");
    assert!(good.len() >= 3);
    for path in good {
        assert_eq!(findings(&fs::read_to_string(&path).unwrap()), "", "{}", path.display());
    }
}

#[test]
fn what_is_written_reads_as_the_same_graph() {
    let yaml = files("yaml/good", "yaml").into_iter().map(|path| {
        let read = read_yaml(&fs::read_to_string(&path).unwrap()).read;
        (path, read)
    });
    let json = files("graphs/good", "json").into_iter().map(|path| {
        let read = read_graph(&fs::read_to_string(&path).unwrap());
        (path, read)
    });
    for (path, read) in yaml.chain(json) {
        assert_eq!(read.findings, [], "{}", path.display());
        let text = to_yaml(&read.graph);
        let again = read_yaml(&text).read;
        assert_eq!(again.findings, [], "{}\n{text}", path.display());
        let sorted = |graph: &weft::domain::Graph| {
            let mut graph = graph.clone();
            // A step says what it waits for, so edges stand in the order of steps.
            graph
                .edges
                .sort_by_key(|edge| (edge.to.clone(), edge.from.clone(), format!("{edge:?}")));
            graph.nodes.sort_by_key(|node| node.id.clone());
            graph
        };
        assert_eq!(sorted(&again.graph), sorted(&read.graph), "{}\n{text}", path.display());
        assert_eq!(to_yaml(&again.graph), text, "{}", path.display());
    }
}

#[test]
fn broken_files_have_exactly_their_findings() {
    let broken = files("yaml/broken", "yaml");
    assert!(broken.len() >= 40, "{}", broken.len());
    let mut wrong = String::new();
    for path in broken {
        let found = findings(&fs::read_to_string(&path).unwrap());
        assert_ne!(found, "", "{} has no finding", path.display());
        let expected = fs::read_to_string(path.with_extension("findings")).unwrap_or_default();
        if found != expected {
            writeln!(wrong, "--- {} has\n{found}--- expected\n{expected}", path.display()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// `cargo test --test it bless_yaml -- --ignored`, and then read what has changed.
#[test]
#[ignore = "writes what the test above compares with"]
fn bless_yaml() {
    for path in files("yaml/broken", "yaml") {
        let found = findings(&fs::read_to_string(&path).unwrap());
        fs::write(path.with_extension("findings"), found).unwrap();
    }
}
