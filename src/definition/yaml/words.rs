//! What findings of a graph say, in the words of a YAML file: it has steps and inputs, and instead of edges `depends_on`.

/// What a finding of a graph says, in the words of YAML.
pub(super) fn in_yaml(text: &str) -> String {
    let mut text = text.to_owned();
    for (graph, yaml) in [
        ("`timeoutSeconds`", "`timeout`"),
        ("`cacheSeconds`", "`cache`"),
        ("`deadlineSeconds`", "`timeout`"),
        ("`onFailure`", "`on_failure`"),
        ("`workingDirectory`", "`working_directory`"),
        ("`captureOutput`", "`capture_output`"),
        ("`onItemFailure`", "`on_item_failure`"),
        ("`atOnce`", "`at_once`"),
        ("`withinSeconds`", "`within`"),
        ("`onCrash`", "`on_crash`"),
        ("`onFalse`", "`on_failure`"),
        ("`securityProfile`", "`security_profile`"),
        ("`active`", "`concurrency`"),
        ("`parameters`", "`inputs`"),
        ("`delay_seconds`", "`delay`"),
        ("`max_delay_seconds`", "`max_delay`"),
        ("`retry_on`", "`on`"),
        ("the graph has no parameter", "the workflow has no input"),
        ("the graph has no parameters", "the workflow has no inputs"),
        ("the parameters are", "the inputs are"),
        ("parameter `", "input `"),
        ("a graph ", "a workflow "),
        ("the graph ", "the workflow "),
        ("this graph", "this workflow"),
        ("node `", "step `"),
        ("node of type", "step of type"),
        ("the id of a node", "the id of a step"),
        ("two nodes", "two steps"),
        ("each node", "each step"),
        ("docs/graphs.md", "docs/yaml.md"),
        ("has no nodes", "has no steps"),
        (
            "write at least one node: `{\"id\": \"fetch\", \"type\": \"python\", \"use\": \"fetch_order\"}`",
            "write at least one step: `- {id: fetch, type: python, use: fetch_order}`",
        ),
        ("nodes wait", "steps wait"),
        ("node 0", "step 0"),
        ("take one of these edges out", "take one of these `depends_on` out"),
        ("take the edge out", "take it out of `depends_on`"),
        ("add an edge from", "let it lead by `depends_on` from"),
        ("or to a node before it", "or to a step before it"),
        ("the members of a parameter", "the members of an input"),
        ("the name of a parameter", "the name of an input"),
        ("`\"network\": [\"api.example.com\"]`", "`network: [api.example.com]`"),
        (
            "`{\"$\": \"steps.fetch.output.lines\"}`",
            "`\"{{ steps.fetch.output.lines }}\"`",
        ),
    ] {
        text = text.replace(graph, yaml);
    }
    text
}

/// A finding's message or hint without edges and without numbers of nodes.
pub(super) fn of_edges(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some(rest) = behind_number(&text, "edge ") {
        text = format!("`depends_on`{}", rest.replace(" needs `from`", " needs `step`"));
    } else if let Some(rest) = behind_number(&text, "step ").or_else(|| behind_number(&text, "node ")) {
        text = format!("the step{rest}");
    } else if let Some((before, rest)) = text.split_once(" of edge ")
        && let Some(rest) = behind_number(&format!("edge {rest}"), "edge ")
    {
        text = format!("{before} of `depends_on`{rest}");
    }
    if let Some((from, to)) = text
        .strip_prefix("let it lead by `depends_on` from `")
        .or_else(|| text.strip_prefix("add an edge from `"))
        .and_then(|rest| rest.split_once("` to `"))
        && let Some((to, rest)) = to.split_once('`')
    {
        let rest = rest
            .replace(", or to a node", ", or in a step")
            .replace(", or to a step", ", or in a step");
        text = format!("write `depends_on: [{from}]` in step `{to}`{rest}");
    }
    if let Some((from, to)) = text
        .strip_prefix("the edge from `")
        .and_then(|rest| rest.split_once("` to `"))
        && let Some(to) = to.strip_suffix("` is there twice")
    {
        text = format!("`depends_on` of step `{to}` names `{from}` twice");
    }
    for (graph, yaml) in [
        (
            "by which edges and expressions name it",
            "by which other steps and expressions name it",
        ),
        (
            "the id of the earlier node",
            "the id of the step that must have ended before",
        ),
        (
            "let the edge begin at a node of type `choose`",
            "name a step of type `conditional`",
        ),
        (
            "let the edge begin at a step of type `choose`",
            "name a step of type `conditional`",
        ),
        ("every node of", "every step of"),
        ("is set, and an edge feeds it", "is set, and `depends_on` feeds it"),
        ("is fed by two edges", "is fed twice"),
        ("an edge can't choose", "`depends_on` can't choose"),
        ("that an edge may feed", "that `depends_on` may feed"),
        ("; edges may feed", "; `depends_on` may feed"),
        ("gives nothing that an edge could carry", "gives nothing"),
        ("take the value or the edge out", "take one of them out"),
        ("or feed it by an edge", "or feed it by `depends_on`"),
        ("it takes nothing from edges", "it takes nothing from `depends_on`"),
        (
            "name the input of the later node in `input`",
            "name the input of this step in `input`",
        ),
    ] {
        text = text.replace(graph, yaml);
    }
    text
}

/// What follows a word and a number at the beginning of a text, from the blank on.
fn behind_number(text: &str, word: &str) -> Option<String> {
    let rest = text.strip_prefix(word)?;
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    (end > 0 && rest[end..].starts_with(' ')).then(|| rest[end..].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_what_a_step_depends_on() {
        for (graph, yaml) in [
            (
                "edge 12 names step `a`, which there isn't",
                "`depends_on` names step `a`, which there isn't",
            ),
            ("edge 0 needs `from`", "`depends_on` needs `step`"),
            (
                "`on` of edge 3 must be one of `end`",
                "`on` of `depends_on` must be one of `end`",
            ),
            ("node 0 needs `id`", "the step needs `id`"),
            ("step 4 needs `id`", "the step needs `id`"),
            (
                "the edge from `a` to `b-c` is there twice",
                "`depends_on` of step `b-c` names `a` twice",
            ),
            (
                "add an edge from `a` to `b`, or to a node before it",
                "write `depends_on: [a]` in step `b`, or in a step before it",
            ),
            // What only looks like it.
            ("edge case", "edge case"),
            ("edge 1", "edge 1"),
            ("step `a` needs `id`", "step `a` needs `id`"),
            ("step 2b is odd", "step 2b is odd"),
            ("add an edge from `a", "add an edge from `a"),
        ] {
            assert_eq!(of_edges(graph), yaml);
        }
    }
}
