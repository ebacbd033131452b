//! The structure of the repository: imports point down, sealed constructors stay sealed, what the system offers for nothing is
//! asked for in one place each, and every function folder has its module.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::Value;
use weft::host::FUNCTIONS;
use weft::http::routes;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(path: &str) -> Value {
    serde_json::from_str(&read(&root().join(path))).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below a folder, but not what tools put there.
fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    const FOREIGN: [&str; 6] = [".git", "target", "node_modules", "__pycache__", ".venv", "data"];
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && !FOREIGN.contains(&name.as_str()) {
            walk(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}

/// A source file without comments, strings and unit tests.
struct Source {
    /// From `src`, as `store/key.rs`.
    path: String,
    /// The module, as `["store", "key"]`.
    module: Vec<String>,
    code: String,
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    let noise = Regex::new(r##"(?s)//[^\n]*|/\*.*?\*/|b?r#".*?"#|'(?:\\.|[^'\\])'|"(?:\\.|[^"\\])*""##).unwrap();
    let mut sources: Vec<_> = files
        .iter()
        .filter(|file| file.extension().is_some_and(|ext| ext == "rs"))
        .map(|file| {
            let path = file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
            let text = read(file);
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let module = path.strip_suffix(".rs").unwrap();
            let module = module.strip_suffix("/mod").unwrap_or(module);
            Source {
                module: module.split('/').map(str::to_owned).collect(),
                code: noise.replace_all(text, "\"\"").into_owned(),
                path,
            }
        })
        .collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 100, "the sources were not found");
    sources
}

/// What stands below `crate` in the paths of a file, one or two names deep: `use crate::{a, b::c}` gives `a` and `b::c`.
fn paths(source: &Source) -> BTreeSet<(String, String)> {
    let start = Regex::new(r"\b(crate|(?:super::)*super)::").unwrap();
    let mut found = BTreeSet::new();
    for start in start.captures_iter(&source.code) {
        let mut base = match &start[1] {
            "crate" => Vec::new(),
            supers => {
                let up = supers.split("::").count();
                // `super` in a `mod.rs` is the folder above as well: the module of the file decides.
                if up > source.module.len() {
                    continue;
                }
                source.module[..source.module.len() - up].to_vec()
            }
        };
        let rest = &source.code[start.get(0).unwrap().end()..];
        base.truncate(2);
        expand(&base, rest, &mut found);
    }
    found
}

fn expand(base: &[String], rest: &str, found: &mut BTreeSet<(String, String)>) {
    let rest = rest.trim_start();
    let mut add = |names: &[String]| {
        if let Some(first) = names.first() {
            found.insert((first.clone(), names.get(1).cloned().unwrap_or_default()));
        }
    };
    if base.len() >= 2 {
        return add(base);
    }
    if let Some(group) = rest.strip_prefix('{') {
        let (mut depth, mut item) = (0, String::new());
        for c in group.chars() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(base, &item, found);
                    item.clear();
                    continue;
                }
                _ => {}
            }
            item.push(c);
        }
        if !item.trim().is_empty() {
            expand(base, &item, found);
        }
        return;
    }
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if name.is_empty() || name == "self" || name == "super" {
        return add(base);
    }
    let mut longer = base.to_vec();
    longer.push(name.clone());
    match rest[name.len()..].strip_prefix("::") {
        Some(rest) => expand(&longer, rest, found),
        None => add(&longer),
    }
}

/// Who may import whom: a module, what it may import beside itself, and why where it is more than the layers say.
///
/// From below: 0 `domain error clock config telemetry codes integrity` · 1 `scheduler definition tenancy authz audit secrets hooks` ·
/// 2 `store runner egress` · 3 `authn usecase` · 4 `http host` · 5 `main cli boot testing`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("error", &["domain"]),
    ("clock", &["domain"]),
    ("telemetry", &["domain"]),
    ("codes", &[]),
    ("integrity", &["domain"]),
    // Mistakes in settings are findings, as every other mistake is.
    ("config", &["domain", "error"]),
    ("authz", &["domain", "error"]),
    // `hooks`: a scope is made of a verified delivery.
    ("tenancy", &["authz", "hooks", "domain", "error"]),
    ("definition", &["domain", "error"]),
    ("scheduler", &["domain", "error"]),
    ("audit", &["authz", "domain", "error"]),
    ("secrets", &["domain"]),
    ("hooks", &["domain", "error"]),
    // `authz`: rows hold roles and the scopes of keys. Time and randomness are handed in as `clock`'s.
    (
        "store",
        &[
            "tenancy",
            "scheduler",
            "audit",
            "authz",
            "secrets",
            "hooks",
            "domain",
            "error",
            "clock",
        ],
    ),
    // Below the runner: what a worker may reach is connected for it.
    ("egress", &["domain", "error"]),
    ("runner", &["egress", "domain", "error", "clock"]),
    // `tenancy`: authentication ends in a scope.
    ("authn", &["store", "tenancy", "authz", "domain", "error", "clock"]),
    // `definition`: arguments are checked against declarations.
    (
        "usecase",
        &[
            "store",
            "runner",
            "egress",
            "scheduler",
            "tenancy",
            "authz",
            "audit",
            "definition",
            "secrets",
            "hooks",
            "domain",
            "error",
            "clock",
        ],
    ),
    // `audit`: the closed lists of levels and events that a query may name. `definition`: declarations as JSON Schema.
    (
        "http",
        &[
            "usecase",
            "authn",
            "tenancy",
            "authz",
            "audit",
            "definition",
            "domain",
            "error",
            "clock",
        ],
    ),
    // `http`: an invocation waits at the same gate, and fails with the same problem body.
    ("host", &["usecase", "tenancy", "http", "domain", "error", "clock"]),
];

/// The composition: it chooses, so it knows everything.
const COMPOSITION: [&str; 5] = ["boot", "cli", "testing", "main", "lib"];

#[test]
fn imports_point_down() {
    let table: BTreeMap<_, _> = MAY_IMPORT.iter().copied().collect();
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    for source in sources() {
        let module = source.module[0].as_str();
        if COMPOSITION.contains(&module) {
            continue;
        }
        let may = table
            .get(module)
            .unwrap_or_else(|| panic!("`{module}` has no row in the table: say what it may import"));
        for (import, _) in paths(&source) {
            let known = import == module || may.contains(&import.as_str());
            used.insert((module.to_owned(), import.clone()));
            if !known {
                wrong.push(format!("src/{} imports `{import}`", source.path));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports that point up or sideways:\n{}",
        wrong.join("\n")
    );
    // What a reader of the table must believe is true: exceptions that nobody needs any more are taken out.
    for (module, exception) in [
        ("config", "error"),
        ("store", "authz"),
        ("authn", "tenancy"),
        ("usecase", "definition"),
        ("http", "audit"),
        ("http", "definition"),
        ("host", "http"),
    ] {
        assert!(
            used.contains(&(module.to_owned(), exception.to_owned())),
            "`{module}` needs `{exception}` no more: take it out of the table"
        );
    }
}

#[test]
fn the_reader_of_imports_reads_them() {
    let source = |path: &str, code: &str| Source {
        path: path.into(),
        module: path.trim_end_matches(".rs").split('/').map(str::to_owned).collect(),
        code: code.into(),
    };
    let names = |source: &Source| -> Vec<String> {
        paths(source)
            .into_iter()
            .map(|(a, b)| if b.is_empty() { a } else { format!("{a}::{b}") })
            .collect()
    };
    assert_eq!(
        names(&source(
            "http/api/runs.rs",
            "use crate::{a, b::{c, d::e}, f::{self}}; use super::x::y; fn z() { crate::g::h::i() } use super::super::super::j;"
        )),
        ["a", "b::c", "b::d", "f", "g::h", "http::api", "j"]
    );
}

/// Narrower than the table: of a module only these parts.
#[test]
fn some_doors_are_narrow() {
    let mut wrong = Vec::new();
    let repo = Regex::new(r"crate::store::(\w+)(?:::(\w+))?").unwrap();
    for source in sources() {
        let module = source.module[0].as_str();
        for (import, part) in paths(&source) {
            let good = match (module, import.as_str()) {
                // Nobody but the composition says which backend there is.
                (_, "store") if matches!(part.as_str(), "sqlite" | "azure" | "fault" | "conformance") => {
                    module == "store" || COMPOSITION.contains(&module)
                }
                ("http" | "host", "usecase") => true,
                ("usecase", "runner") => !matches!(part.as_str(), "pool" | "python" | "protocol" | "scripted"),
                ("host", "http") => matches!(part.as_str(), "Gate" | "problem"),
                _ => true,
            };
            if !good {
                wrong.push(format!("src/{} imports `{import}::{part}`", source.path));
            }
        }
        if module == "authn" {
            for path in repo.captures_iter(&source.code) {
                let to = (&path[1], path.get(2).map_or("", |part| part.as_str()));
                if !matches!(to, ("repo", "identity" | "keys")) {
                    wrong.push(format!("src/{} uses {}", source.path, &path[0]));
                }
            }
        }
        // Pure code can't wait.
        if matches!(
            module,
            "domain" | "authz" | "tenancy" | "definition" | "scheduler" | "audit" | "secrets" | "hooks" | "error"
        ) {
            for word in [
                "async fn", "tokio::", ".await", "std::fs", "std::net", "reqwest", "axum",
            ] {
                if source.code.contains(word) {
                    wrong.push(format!("src/{} has `{word}`", source.path));
                }
            }
        }
        if matches!(module, "usecase" | "store" | "runner") {
            for word in ["axum::"] {
                if source.code.contains(word) {
                    wrong.push(format!("src/{} has `{word}`", source.path));
                }
            }
        }
        if module != "store" && !COMPOSITION.contains(&module) && source.code.contains("azure_core") {
            wrong.push(format!("src/{} knows Azure", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The text of a struct's or function's own block.
fn block<'a>(code: &'a str, head: &str) -> &'a str {
    let start = code.find(head).unwrap_or_else(|| panic!("`{head}` is gone"));
    let rest = &code[start..];
    &rest[..rest.find("\n}").unwrap()]
}

#[test]
fn sealed_constructors_stay_sealed() {
    let sources = sources();
    let of = |path: &str| {
        let source = sources.iter().find(|source| source.path == path);
        source.unwrap_or_else(|| panic!("{path} is gone")).code.as_str()
    };
    for (name, file, home) in [
        ("Scope", "tenancy/scope.rs", "tenancy"),
        ("PlatformScope", "tenancy/operator.rs", "tenancy"),
        ("Transition", "scheduler/transition.rs", "scheduler"),
    ] {
        let code = of(file);
        let fields = block(code, &format!("pub struct {name} {{"));
        assert!(
            !fields["pub struct".len()..].contains("pub"),
            "`{name}` has a field that others can set"
        );
        let derives = &code[..code.find(&format!("pub struct {name} {{")).unwrap()];
        let derives = &derives[derives.rfind("#[derive").unwrap()..];
        for made in ["Default", "Deserialize"] {
            assert!(!derives.contains(made), "`{name}` can be made by `{made}`");
            assert!(
                !code.contains(&format!("{made} for {name}")),
                "`{name}` can be made by `{made}`"
            );
        }
        let literal = Regex::new(&format!(r"(?:^|[^\w]){name}(?:::new\(|\s*\{{\s*\w+\s*[:,])")).unwrap();
        for source in sources.iter().filter(|source| source.module[0] != home) {
            assert!(!literal.is_match(&source.code), "src/{} makes a `{name}`", source.path);
        }
    }
    for (file, head) in [
        ("tenancy/scope.rs", "const fn new("),
        ("scheduler/transition.rs", "fn new("),
    ] {
        let code = of(file);
        let line = code.lines().find(|line| line.contains(head)).unwrap().trim();
        assert!(line.starts_with("pub(super) "), "src/{file}: {line}");
    }
    // Only what is declared here hands one out.
    let makers = Regex::new(r"pub (?:const )?fn (\w+)[^{;]*?-> (?:Result<)?(?:Platform)?Scope\b").unwrap();
    let made: BTreeSet<_> = sources
        .iter()
        .filter(|source| source.module[0] == "tenancy")
        .flat_map(|source| makers.captures_iter(&source.code).map(|found| found[1].to_owned()))
        .collect();
    let expected = [
        "cross",
        "deliver",
        "librarian",
        "operator",
        "operator_in",
        "platform",
        "publisher",
        "rehydrate",
        "rehydrate_due",
        "resolve",
        "resolve_key",
        "system",
    ];
    assert_eq!(made, expected.map(str::to_owned).into());
    // Decisions are made in one place: nobody but use cases asks the scheduler, nobody but storage takes its word.
    for (door, users) in [
        ("operator()", &["cli", "testing"][..]),
        ("rehydrate(", &["usecase"]),
        ("tenancy::deliver(", &["usecase"]),
        ("rehydrate_due(", &["usecase"]),
        ("resolve_key(", &["authn"]),
        ("cross(", &["authn"]),
    ] {
        let call = Regex::new(&format!(r"(?:^|[^\w.]){}", regex::escape(door))).unwrap();
        for source in &sources {
            let module = source.module[0].as_str();
            if module != "tenancy" && call.is_match(&source.code) {
                assert!(users.contains(&module), "src/{} calls `{door}`", source.path);
            }
        }
    }
}

/// Whoever lets rows refer to blobs tells the collector, which would delete them after a day.
#[test]
fn the_collector_knows_every_reference_to_a_value() {
    let written = Regex::new(r#"put_(?:payload|text)\((?:scope, )?&mut properties,\s*"(\w+)""#).unwrap();
    let mut found = BTreeSet::new();
    for source in &sources() {
        // Partitions that it looks through: results, workflows and runs, with their letters.
        let looked_through = ["store/repo/results.rs", "store/repo/workflows.rs", "store/repo/runs.rs"];
        let text = read(&root().join("src").join(&source.path));
        for name in written.captures_iter(&text) {
            assert!(
                looked_through.contains(&&*source.path),
                "src/{} refers to values",
                source.path
            );
            found.insert(format!("{}Claim", &name[1]));
        }
        if text.contains("claim_check::save(") || text.contains("claim_check::put(") {
            assert!(
                looked_through.contains(&&*source.path),
                "src/{} keeps values",
                source.path
            );
        }
    }
    let known = weft::store::repo::collector::CLAIMS.map(str::to_owned);
    assert_eq!(found, BTreeSet::from(known));
}

/// Every method of a repository takes whose rows it is about, before anything else.
#[test]
fn repositories_take_a_scope_first() {
    // Asked before there is a scope, by what was authenticated; `within` is a scope of either kind. What is handed out is
    // about one thing that the caller holds already.
    const WITHOUT: &[&str] = &[
        "collector::give_back",
        "collector::share",
        "identity::organization",
        "identity::membership",
        "identity::person",
        "keys::find",
        "keys::note_use",
        "installation::signing_key",
        "runs::idempotent_run",
        "retention::with",
        "runs::sub_run",
        "kv::is_key",
        "schedules::fired_run",
        "schedules::jitter",
        "schedules::remember",
        "schedules::triggered_run",
        "secrets::read",
        "secrets::keys",
        "secrets::add",
        "audit_log::of",
        "audit_log::by",
        "audit_log::anonymous",
        "audit_log::writer",
        "audit_log::index_operations",
        "audit_log::to_properties",
        "audit_log::from_properties",
        "configs::is_name",
        "backlog::of_others",
        "backlog::is_exempt",
        "backlog::rank",
        "backlog::waiting",
        "workflows::trust_of",
    ];
    let method = Regex::new(r"pub (?:const )?(?:async )?fn (\w+)(?:<[^>]*>)?\(\s*([^)]*)\)").unwrap();
    let mut seen = 0;
    for source in sources() {
        let [store, repo, name, ..] = &source.module[..] else {
            continue;
        };
        if (store.as_str(), repo.as_str()) != ("store", "repo") || name == "cache" {
            continue;
        }
        for found in method.captures_iter(&source.code) {
            let full = format!("{name}::{}", &found[1]);
            let arguments: Vec<_> = found[2]
                .split(", ")
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .collect();
            let first = arguments
                .iter()
                .find(|part| !part.ends_with("self"))
                .copied()
                .unwrap_or_default();
            if &found[1] == "new" || first.is_empty() || WITHOUT.contains(&full.as_str()) {
                continue;
            }
            seen += 1;
            assert!(
                ["&Scope", "&PlatformScope", "Into<Within<'a>>"]
                    .iter()
                    .any(|kind| first.contains(kind)),
                "`{full}` takes `{first}` first"
            );
        }
    }
    assert!(seen > 30, "the methods of the repositories were not found: {seen}");
}

/// Use cases that write a record by themselves, and why that is not the record of a change that could be made without it.
const NO_CHANGE: &[(&str, &str)] = &[
    ("admit::crossing", "somebody is let in"),
    ("admit::key_bypass", "somebody is let in"),
    ("admit::write", "somebody is let in, or turned away"),
    ("admit::write_platform", "somebody is turned away"),
    ("approval::link", "nothing is stored: the link is what is answered"),
    ("broker::secrets::recorded", "a use, or a refusal"),
    ("broker::append", "a refusal"),
    ("collect::record", "before anything is deleted"),
    ("hook_delivery::refused", "a refusal"),
    ("hook_delivery::unknown", "a refusal"),
    ("isolation::record", "what an attempt had"),
    ("node_type::resolve::unusable", "a refusal"),
    ("node_type::trial::test", "nothing is stored"),
    ("on_record::keep", "what the others call"),
    ("on_record::recorded", "what the others call"),
    ("plan::make", "nothing is stored"),
    ("policy::refused", "a refusal"),
    ("policy::refused_by_profile", "a refusal"),
    (
        "queue_trigger::message::take",
        "the message stays in its queue until it is on record, and is taken again",
    ),
    (
        "queue_trigger::open",
        "nothing is stored: the address is what is answered",
    ),
    ("queue_trigger::send", "before it is sent, and once more with its id"),
    ("retention::record", "before anything is deleted"),
    (
        "schedule::fire::audit",
        "before it is settled: whoever comes after says it again",
    ),
    ("schedule::fire::disable_unreadable", "before it is written"),
    ("schedule::fire::settle", "before it is written"),
    (
        "secret::reseal",
        "before it begins, and once more with how many there were",
    ),
    (
        "seed::seed",
        "the sample of a development installation, by whoever sets it up",
    ),
];

/// Which functions of the use cases call something, as `config::set`.
fn callers(what: &Regex) -> BTreeSet<String> {
    let function = Regex::new(r"\bfn\s+(\w+)").unwrap();
    let mut found = BTreeSet::new();
    for source in sources().iter().filter(|source| source.module[0] == "usecase") {
        // `keep` and `recorded` of other things are called alike.
        let is_own = source.code.contains("on_record::") || source.path == "usecase/on_record.rs";
        for call in what.find_iter(&source.code) {
            if !is_own && !call.as_str().contains("audit") {
                continue;
            }
            let before = &source.code[..call.start()];
            let name = function
                .captures_iter(before)
                .last()
                .map_or("", |found| found.get(1).unwrap().as_str());
            // The definition itself.
            if !before.trim_end().ends_with("fn") {
                found.insert([&source.module[1..], &[name.to_owned()]].concat().join("::"));
            }
        }
    }
    found
}

#[test]
fn records_are_written_before_changes() {
    let alone = callers(&Regex::new(r"\baudit\s*\.\s*(append|write)\(|[^.\w]keep\(").unwrap());
    let listed: BTreeSet<_> = NO_CHANGE.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(
        alone, listed,
        "a change is made by `on_record::recorded`; what is none is listed here, with its reason"
    );
    let recorded = callers(&Regex::new(r"\brecorded\(").unwrap());
    let tried: BTreeSet<_> = crate::on_record::CHANGES
        .iter()
        .map(|(name, ..)| (*name).to_owned())
        .collect();
    let missing: Vec<_> = recorded
        .difference(&tried)
        .filter(|name| !name.starts_with("broker::secrets::"))
        .collect();
    assert!(
        missing.is_empty(),
        "`tests/it/on_record.rs` loses storage in the middle of each change: {missing:?}"
    );
}

#[test]
fn what_the_system_offers_is_asked_for_in_one_place() {
    for (what, homes) in [
        (r"\benv::vars?(_os)?\(", &["config/environment.rs"][..]),
        (r"\benv::(set|remove)_var\(", &[]),
        (r"\bSystemTime::now\(", &["clock.rs"]),
        (
            r"\bCommand::new\(",
            &[
                "runner/environment.rs",
                "runner/environments/resolver.rs",
                "runner/python.rs",
                "runner/tools.rs",
            ],
        ),
        (r"\brand::fill\(", &["clock.rs"]),
        (r"\bprocess::exit\(", &[]),
        (
            r"\b(lazy_static|OnceCell|LazyLock|thread_local)\b",
            // What is the same for ever.
            &["definition/expression.rs", "definition/parameters.rs"],
        ),
    ] {
        let pattern = Regex::new(what).unwrap();
        for source in sources() {
            if pattern.is_match(&source.code) {
                assert!(
                    homes.contains(&source.path.as_str()),
                    "src/{} has `{what}`",
                    source.path
                );
            }
        }
    }
    let clippy = read(&root().join("clippy.toml"));
    for banned in [
        "std::time::SystemTime::now",
        "std::env::var",
        "std::process::Command::new",
    ] {
        assert!(
            clippy.contains(&format!("path = \"{banned}\", reason = ")),
            "clippy.toml no longer bans {banned}"
        );
    }
}

#[test]
fn traits_exist_at_the_seams_only() {
    let declared = Regex::new(r"\bpub(?:\([a-z]+\))? trait (\w+)").unwrap();
    let found: BTreeSet<_> = sources()
        .iter()
        .flat_map(|source| {
            declared
                .captures_iter(&source.code)
                .map(|found| found[1].to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    // The five seams, the store of secrets, `Coded`, which every layer's error has, and `StepIds`, by which expressions are
    // read of a plan and of a graph alike.
    let seams = [
        "BlobStore",
        "Clock",
        "Coded",
        "NodeRunner",
        "QueueStore",
        "SecretStore",
        "StepIds",
        "TableStore",
    ];
    assert_eq!(found, seams.map(str::to_owned).into(), "a trait is for a seam");
}

#[test]
fn unsafe_code_is_nowhere_unexplained() {
    let unsafe_code = Regex::new(r"\bunsafe\s*(\{|fn|impl)").unwrap();
    for source in sources() {
        if unsafe_code.is_match(&source.code) {
            let text = read(&root().join("src").join(&source.path));
            assert!(
                text.contains("SAFETY"),
                "src/{} has unsafe code without its reason",
                source.path
            );
        }
    }
}

#[test]
fn no_fossils_and_no_drawers() {
    let mut files = Vec::new();
    walk(root(), &mut files);
    for file in &files {
        let path = file.strip_prefix(root()).unwrap().display().to_string();
        for ending in [".bak", ".old", ".disabled", ".orig", ".rej", "~"] {
            assert!(!path.ends_with(ending), "{path} is a fossil");
        }
    }
    for source in sources() {
        for name in &source.module {
            let drawer = [
                "common", "shared", "utils", "util", "helpers", "helper", "types", "misc",
            ];
            assert!(
                !drawer.contains(&name.as_str()),
                "src/{}: `{name}` says nothing",
                source.path
            );
        }
    }
}

/// A file that grows to several times its neighbours is a list of everything; it is split before that.
#[test]
fn every_file_says_what_it_is_for() {
    for source in sources() {
        let text = read(&root().join("src").join(&source.path));
        assert!(
            text.starts_with("//!"),
            "src/{} does not say what it is for",
            source.path
        );
    }
}

// ── functions of the host ──────────────────────────────────────────────────────────────────────────────────────────────

/// The folders with a `function.json`, with its bindings.
fn functions() -> BTreeMap<String, Vec<Value>> {
    std::fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("function.json").is_file())
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let bindings = json(&format!("{name}/function.json"))["bindings"]
                .as_array()
                .unwrap()
                .clone();
            (name, bindings)
        })
        .collect()
}

#[test]
fn every_function_has_its_module_and_the_reverse() {
    let functions = functions();
    let folders: BTreeSet<_> = functions
        .keys()
        .map(String::as_str)
        .filter(|name| *name != "api")
        .collect();
    assert_eq!(folders, FUNCTIONS.into(), "function folders and `host::FUNCTIONS`");
    let files: BTreeSet<_> = std::fs::read_dir(root().join("src/host"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !matches!(name.as_str(), "mod.rs" | "envelope.rs"))
        .collect();
    assert_eq!(
        files,
        FUNCTIONS.map(|name| format!("{name}.rs")).into(),
        "files in src/host"
    );
    let module = read(&root().join("src/host/mod.rs"));
    for name in FUNCTIONS {
        let route = format!(".route(\"/{name}\", post({name}::invoke))");
        assert!(module.contains(&route), "`POST /{name}` is not served");
    }
}

#[test]
fn the_bindings_are_as_the_handler_reads_them() {
    for (name, bindings) in functions() {
        for binding in &bindings {
            let binding_name = binding["name"].as_str().unwrap();
            // The host checks it against a pattern that has no underscore, and then leaves the whole function out.
            assert!(
                binding_name.chars().all(|c| c.is_ascii_alphanumeric())
                    && binding_name.starts_with(|c: char| c.is_ascii_alphabetic()),
                "{name}: the host refuses the binding name `{binding_name}`"
            );
        }
        let kinds: Vec<_> = bindings
            .iter()
            .map(|binding| {
                (
                    binding["type"].as_str().unwrap(),
                    binding["direction"].as_str().unwrap(),
                )
            })
            .collect();
        match name.as_str() {
            "api" => {
                // Exactly these two, or the host wraps requests in an envelope instead of passing them on.
                assert_eq!(kinds, [("httpTrigger", "in"), ("http", "out")]);
                assert_eq!(bindings[0]["authLevel"], "anonymous", "the handler authenticates");
                assert_eq!(bindings[0]["route"], "{*path}");
                let methods: BTreeSet<_> = bindings[0]["methods"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|m| m.as_str().unwrap().to_uppercase())
                    .collect();
                for route in routes::table() {
                    assert!(
                        methods.contains(route.method),
                        "the host does not pass {} on",
                        route.method
                    );
                }
            }
            "tick" => {
                assert_eq!(kinds, [("timerTrigger", "in")]);
                assert_eq!(bindings[0]["schedule"], "0 * * * * *");
                assert_ne!(
                    bindings[0]["runOnStartup"], true,
                    "every instance that starts would tick"
                );
            }
            _ => {
                assert_eq!(kinds, [("queueTrigger", "in")], "{name}");
                assert_eq!(bindings[0]["connection"], "AzureWebJobsStorage");
                assert_eq!(bindings[0]["name"], "message", "{name}: src/host reads `message`");
            }
        }
    }
}

#[test]
fn each_queue_has_one_function() {
    use weft::store::key::{QUEUES, Queue};
    let of_functions: BTreeMap<String, String> = functions()
        .into_iter()
        .filter_map(|(name, bindings)| Some((bindings[0]["queueName"].as_str()?.to_owned(), name)))
        .collect();
    let expected = QUEUES.map(|queue| {
        let function = match queue {
            Queue::Runs => "drive_run",
            Queue::Attempts => "attempt_step",
            Queue::RunsPoison => "drive_run_poison",
            Queue::AttemptsPoison => "attempt_step_poison",
        };
        (queue.name().as_str().to_owned(), function.to_owned())
    });
    assert_eq!(of_functions, expected.into());
    for (queue, poison) in [
        (Queue::Runs, Queue::RunsPoison),
        (Queue::Attempts, Queue::AttemptsPoison),
    ] {
        assert_eq!(
            poison.name().as_str(),
            format!("{}-poison", queue.name().as_str()),
            "the host's own ending"
        );
    }
}

/// The host forwards only what is below its prefix; were a route of ours spelled like a function, a caller could forge an
/// invocation of it.
#[test]
fn no_route_spells_a_function() {
    assert_eq!(json("host.json")["extensions"]["http"]["routePrefix"], "api");
    for route in routes::table() {
        assert!(
            route.path.starts_with("/api/"),
            "{} is not below the prefix",
            route.path
        );
        let first = route.path.split('/').nth(1).unwrap();
        assert!(!FUNCTIONS.contains(&first), "{} spells a function", route.path);
    }
    for name in FUNCTIONS {
        assert_ne!(name, "api");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
    }
}

#[test]
fn the_host_is_told_what_the_handler_needs() {
    let host = json("host.json");
    assert_eq!(host["version"], "2.0");
    let handler = &host["customHandler"];
    assert_eq!(handler["enableProxyingHttpRequest"], true, "HTTP is passed on as it is");
    assert!(
        handler.get("enableForwardingHttpRequest").is_none(),
        "the older flag takes precedence over nothing"
    );
    assert_eq!(handler["description"]["arguments"], serde_json::json!(["serve"]));
    let executable = handler["description"]["defaultExecutablePath"].as_str().unwrap();
    assert_eq!(Path::new(executable).file_name().unwrap(), "weft");
    let queues = &host["extensions"]["queues"];
    assert_eq!(
        queues["maxDequeueCount"], 5,
        "as `usecase::deliver` counts where there is no host"
    );
    assert_eq!(queues["messageEncoding"], "base64", "as `store` sends");
    assert!(
        host.get("retry").is_none(),
        "the host would repeat invocations on its own"
    );
    let timeout = host["functionTimeout"].as_str().unwrap();
    let seconds = timeout
        .split(':')
        .fold(0, |sum, part| sum * 60 + part.parse::<u64>().unwrap());
    assert!(seconds > 240, "an invocation waits 240 s in src/host");
    let local = json("local.settings.json");
    assert_eq!(local["Values"]["FUNCTIONS_WORKER_RUNTIME"], "custom");
    assert_eq!(
        local["Values"]["AzureWebJobsStorage"], "UseDevelopmentStorage=true",
        "never a secret"
    );
}
