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

fn wait_for(text: &str) -> Vec<(String, String, String)> {
    let read = read_yaml(text).read;
    assert_eq!(read.findings, [], "{text}");
    let graph = serde_json::to_value(&read.graph).unwrap();
    let mut edges: Vec<_> = graph["edges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|edge| {
            let text = |name: &str| edge[name].as_str().unwrap_or_default().to_owned();
            (text("from"), text("branch"), text("to"))
        })
        .collect();
    edges.sort();
    edges
}

fn edges(all: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    let mut edges: Vec<_> = all
        .iter()
        .map(|(from, branch, to)| ((*from).to_owned(), (*branch).to_owned(), (*to).to_owned()))
        .collect();
    edges.sort();
    edges
}

#[test]
fn what_stands_in_a_branch_begins_only_there() {
    let text = "
name: w
inputs: {n: {type: integer, required: true}}
steps:
  - {id: fetch, type: compute, value: 1}
  - id: big
    type: conditional
    condition: inputs.n > 1
    then:
      - {id: send, type: compute, depends_on: [fetch], value: 1}
      - {id: tell, type: compute, depends_on: [big, send], value: 1}
";
    let found = wait_for(text);
    assert_eq!(
        found,
        edges(&[("fetch", "", "send"), ("big", "then", "send"), ("send", "", "tell"),])
    );
}

#[test]
fn what_follows_a_conditional_waits_for_the_whole_branch() {
    // The inner one's name is before the outer one's, steps stand in any order, and a branch ends with two steps.
    let text = "
name: w
inputs: {n: {type: integer, required: true}}
steps:
  - {id: z-last, type: compute, depends_on: [outer], value: 1}
  - id: outer
    type: conditional
    condition: inputs.n > 1
    then:
      - id: a-inner
        type: conditional
        condition: inputs.n > 2
        then:
          - {id: three, type: compute, depends_on: [two], value: 1}
          - {id: two, type: compute, value: 1}
      - {id: beside, type: compute, value: 1}
  - {id: outer-end, type: compute, value: taken}
";
    let found = wait_for(text);
    assert_eq!(
        found,
        edges(&[
            ("outer", "then", "a-inner"),
            ("outer", "then", "beside"),
            ("outer", "else", "outer-end-2"),
            ("a-inner", "then", "two"),
            ("two", "", "three"),
            ("three", "", "a-inner-end"),
            ("a-inner", "else", "a-inner-end"),
            ("a-inner-end", "", "outer-then-end"),
            ("beside", "", "outer-then-end"),
            ("outer-then-end", "", "outer-end-2"),
            ("outer-end-2", "", "z-last"),
        ])
    );
}

#[test]
fn what_is_carried_from_a_conditional_is_its_own_and_waits_for_the_whole_branch() {
    let text = "
name: w
inputs: {n: {type: integer, required: true}}
steps:
  - id: pick
    type: conditional
    condition: inputs.n > 1
    then:
      - {id: inside, type: compute, value: 1}
  - {id: after, type: compute, depends_on: [{step: pick, output: branch, input: value}]}
";
    let found = wait_for(text);
    assert_eq!(
        found,
        edges(&[
            ("pick", "then", "inside"),
            ("pick", "else", "pick-end"),
            ("inside", "", "pick-end"),
            ("pick", "", "after"),
            ("pick-end", "", "after"),
        ])
    );
    let read = read_yaml(text).read;
    let after = read.graph.nodes.iter().find(|node| node.id == "after").unwrap();
    assert_eq!(
        after.fed["value"],
        serde_json::json!({"$": "steps.pick.output[\"branch\"]"})
    );
}

#[test]
fn what_is_meant_as_text_stays_as_it_is_written() {
    let text = "
name: w
inputs: {tag: {type: string, enum: [1.0, 1.10, yes], default: 1.10}}
environment: {VERSION: 1.10, ANSWER: yes, COUNT: 5}
steps:
  - {id: a, type: shell, command: [echo, 1.10, 007, 0x10, True, null, ~, 5]}
";
    let read = read_yaml(text).read;
    assert_eq!(read.findings, []);
    let graph = serde_json::to_value(&read.graph).unwrap();
    let node = &graph["nodes"][0];
    let command = serde_json::json!(["echo", "1.10", "007", "0x10", "True", "null", "~", 5]);
    assert_eq!(node["command"], command);
    let variables = serde_json::json!({"VERSION": "1.10", "ANSWER": "yes", "COUNT": 5});
    assert_eq!(node["environment"], variables);
    let choices = serde_json::json!(["1.0", "1.10", "yes"]);
    assert_eq!(graph["parameters"][0]["enum"], choices);
}

fn first_finding(text: &str) -> String {
    read_yaml(text)
        .read
        .findings
        .first()
        .map(|found| found.code.to_string())
        .unwrap_or_default()
}

#[test]
fn bombs_are_refused_before_they_are_large() {
    // Much text, repeated.
    let long = "x".repeat(400_000);
    let text = format!("name: w\na: &a {long}\nb: [{}]\n", "*a,".repeat(40_000));
    assert_eq!(first_finding(&text), "too_large");
    // An anchor at each level.
    let open: String = (0..50).map(|level| format!("&a{level} [")).collect();
    let text = format!("name: w\na: {open}{}{}\n", "x,".repeat(5_000), "]".repeat(50));
    assert_eq!(first_finding(&text), "too_large");
    // Aliases that nest deeper than anything that is written.
    let mut text = "name: w\nl0: &l0 [x]\n".to_owned();
    for level in 1..60 {
        writeln!(
            text,
            "l{level}: &l{level} {}*l{} {}",
            "[".repeat(50),
            level - 1,
            "]".repeat(50)
        )
        .unwrap();
    }
    assert_eq!(first_finding(&text), "too_deep");
    // Nothing but size.
    assert_eq!(
        first_finding(&format!("name: w\n# {}\n", "x".repeat(1 << 20))),
        "too_large"
    );
    // Many steps are told as too many, and soon.
    let steps: String = (0..9_000)
        .map(|step| format!("  - {{id: s{step}, type: compute, value: 1}}\n"))
        .collect();
    let found = read_yaml(&format!("name: w\nsteps:\n{steps}")).read.findings;
    assert!(found.len() < 5, "{found:?}");
    assert!(!found.is_empty());
}

mod generated {
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use weft::definition::{read_graph, read_yaml, to_yaml};

    /// Texts without `{{`, which are written as expressions where they are no templates.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            proptest::collection::vec(any::<char>(), 0..12).prop_map(|chars| chars.into_iter().collect()),
            proptest::sample::select(vec![
                "", "~", "null", "yes", "on", "1.10", "0x10", "0o7", "1e3", ".inf", "-", "- a", "a: b", "a #b", "<<",
                "&a", "*a", "!t", "%x", "@x", "}}", "{% if %}", "'", "\"", "\\", "---", "...", "?", "|", ">",
                "\u{feff}", "\u{85}", "\u{2028}", "\t", "a\r\nb", "\u{0}", "\u{7f}",
            ])
            .prop_map(str::to_owned),
        ]
        .prop_map(|text: String| text.replace("{{", "{ {"))
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(|value| json!(value)),
            any::<i64>().prop_map(|value| json!(value)),
            any::<u64>().prop_map(|value| json!(value)),
            any::<f64>().prop_map(|value| json!(value)),
            text().prop_map(|value| json!(value)),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| json!(items)),
                proptest::collection::vec((text(), inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_value_is_written_and_read_as_itself(one in value(), two in value(), words in proptest::collection::vec(text(), 1..4)) {
            let graph = json!({
                "name": "w",
                "description": words[0],
                "nodes": [
                    {"id": "a", "type": "compute", "value": one},
                    {"id": "b", "type": "shell", "command": words.iter().map(|word| json!(word)).collect::<Vec<_>>()},
                ],
                "edges": [{"from": "a", "to": "b"}],
                "output": two,
            });
            let read = read_graph(&graph.to_string());
            prop_assume!(read.findings.is_empty());
            let yaml = to_yaml(&read.graph);
            let again = read_yaml(&yaml).read;
            prop_assert_eq!(&again.findings, &Vec::new(), "{}", yaml);
            prop_assert_eq!(again.graph, read.graph, "{}", yaml);
        }

        #[test]
        fn nothing_that_is_read_ends_the_reader(text in proptest::collection::vec(proptest::sample::select(vec![
            "name: w\n", "steps:\n", "  - id: a\n", "    type: shell\n", "    command: x\n", "- ", "{", "}", "[", "]", ",", ": ", "? ", "&a ",
            "*a ", "!!x ", "|\n", ">-\n", "'", "\"", "#", "\t", "\n", "  ", "---\n", "...\n", "%YAML 1.1\n", "<<: ", "\u{feff}", "\r\n", "é",
            "then:\n", "inputs: ", "depends_on: ", "type: conditional\n", "outputs: ", "environment: ",
        ]), 0..40)) {
            let text = text.concat();
            let read = read_yaml(&text);
            for finding in &read.read.findings {
                let (line, column) = read.place_of(&finding.pointer);
                prop_assert!(line >= 1 && column >= 1 && line <= text.lines().count() + 1, "{line}:{column} of {text:?}");
                prop_assert!(finding.hint.is_some(), "{}", finding.message);
            }
        }
    }
}
