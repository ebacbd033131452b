//! Command lines in which a value could become code: what every installed shell does with what is let through, and what is not.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use weft::definition::{filled, read_graph};
use weft::domain::Limits;
use weft::scheduler::Plan;

/// Values that run something, or put a file down, where they are read as code.
const HOSTILE: &[&str] = &[
    "; touch f #",
    "$(touch f)",
    "`touch f`",
    "'; touch f; '",
    "\"; touch f; \"",
    "'\"; touch f; \"'",
    "a[$(touch f)]",
    "a[`touch f`]=1",
    "x\ntouch f\n",
    "\n touch f",
    "| touch f",
    "&& touch f",
    "> f",
    "}; touch f; {",
    ") touch f (",
    "*) touch f;; a",
    "\\\"; touch f",
    "\\'; touch f",
    "{{ inputs.x }}",
    "${IFS}touch${IFS}f",
    "-Stouch f",
    "-va[$(touch f)]",
    "() { :; }; touch f",
    "!!:touch f",
    "touch f",
    "{touch,f}",
    "~",
    "*",
    "\t \t",
    "",
];

/// Command lines that say what the program sees: each value stands in its place, with what stands around it.
const LET_THROUGH: &[(&str, &str)] = &[
    ("printf '%s' {{ inputs.x }}", "{}"),
    ("printf '%s' 'a {{ inputs.x }} b'", "a {} b"),
    ("printf '%s' \"a {{ inputs.x }} b\"", "a {} b"),
    ("printf '%s' a'b'{{ inputs.x }}\"c\"d", "ab{}cd"),
    ("printf '[%s]' {{ inputs.x }} x{{ inputs.x }}y", "[{}][x{}y]"),
    ("V={{ inputs.x }}; printf '%s' \"$V\"", "{}"),
    ("V=a{{ inputs.x }} && printf '%s' \"$V\"", "a{}"),
    ("export V={{ inputs.x }}; printf '%s' \"$V\"", "{}"),
    ("V='{{ inputs.x }}' sh -c 'printf %s \"$V\"'", "{}"),
    ("sh -c 'printf %s \"$1\"' sh {{ inputs.x }}", "{}"),
    (
        "for one in {{ inputs.x }} b; do printf '<%s>' \"$one\"; done",
        "<{}><b>",
    ),
    (
        "case {{ inputs.x }} in zz) printf no;; *) printf '%s' {{ inputs.x }};; esac",
        "{}",
    ),
    ("case q in {{ inputs.x }}q) printf no;; *) printf yes;; esac", "?"),
    (
        "if [ {{ inputs.x }} = zz ]; then printf no; else printf '%s' \"{{ inputs.x }}\"; fi",
        "{}",
    ),
    ("[ -n {{ inputs.x }} ]; printf '%s' {{ inputs.x }}", "{}"),
    ("{ printf '%s' {{ inputs.x }}; }", "{}"),
    ("(printf '%s' {{ inputs.x }})", "{}"),
    ("printf '%s' {{ inputs.x }} | cat", "{}"),
    ("printf '%s' {{ inputs.x }} 2>&1 3>/dev/null", "{}"),
    ("2>/dev/null printf '%s' {{ inputs.x }}", "{}"),
    (">&1 printf '%s' {{ inputs.x }}", "{}"),
    ("! false && printf '%s' {{ inputs.x }}", "{}"),
    ("printf '%s' \\\n  {{ inputs.x }}", "{}"),
    ("printf '%s' \"it's {{ inputs.x }}\"", "it's {}"),
    ("printf '%s' 'say \"{{ inputs.x }}\"'", "say \"{}\""),
    ("printf '%s' \\'{{ inputs.x }}\\'", "'{}'"),
    ("printf '%s' a\\\\{{ inputs.x }}", "a\\{}"),
    ("printf '%s' \"\\\"{{ inputs.x }}\\\"\"", "\"{}\""),
    ("printf '%s' $((1 + 2)){{ inputs.x }}", "3{}"),
    ("printf '%s' \"$(printf a)\"{{ inputs.x }}", "a{}"),
    (
        "cat <<'END'\nit's $(touch f)\nEND\nprintf '%s' {{ inputs.x }}",
        "it's $(touch f)\n{}",
    ),
    ("env A=b printf '%s' {{ inputs.x }}", "{}"),
    ("timeout 5 printf '%s' {{ inputs.x }}", "{}"),
    ("command printf '%s' {{ inputs.x }}", "{}"),
    ("awk -v v=1 'BEGIN { printf \"%s\", ARGV[1] }' {{ inputs.x }}", "{}"),
    (
        "python3 -c 'import sys; sys.stdout.write(sys.argv[1])' {{ inputs.x }}",
        "{}",
    ),
    ("printf '%s' {{ inputs.x }} # it's done", "{}"),
    ("printf '%s' a#b{{ inputs.x }}", "a#b{}"),
];

/// Command lines in which a value would be code in one shell or another, or be what runs.
const REFUSED: &[&str] = &[
    "echo $(eval \"echo {{ inputs.x }}\")",
    "echo $(sh -c \"{{ inputs.x }}\")",
    "echo \"$(echo \"{{ inputs.x }}\")\"",
    "echo \"$(echo '{{ inputs.x }}')\"",
    "echo $(( \"{{ inputs.x }}\" ))",
    "echo \"$(( {{ inputs.x }} ))\"",
    "(( 1 + {{ inputs.x }} ))",
    "for (( i={{ inputs.x }}; i < 1; i++ )); do :; done",
    "echo $[ {{ inputs.x }} ]",
    "V={{ inputs.x }}; echo $((V + 1))",
    "V={{ inputs.x }}; eval \"$V\"",
    "V={{ inputs.x }}; sh -c \"echo $V\"",
    "V={{ inputs.x }}; echo $(eval \"$V\")",
    "2>err eval {{ inputs.x }}",
    ">out eval {{ inputs.x }}",
    ">|out eval {{ inputs.x }}",
    "{fd}>out eval {{ inputs.x }}",
    "for one do eval {{ inputs.x }}; done",
    "time eval {{ inputs.x }}",
    "coproc eval {{ inputs.x }}",
    "command eval {{ inputs.x }}",
    "builtin eval {{ inputs.x }}",
    "\\eval {{ inputs.x }}",
    "e'v'al {{ inputs.x }}",
    "ev\\\nal {{ inputs.x }}",
    "echo \"$\\\n(eval {{ inputs.x }})\"",
    "cat <\\\n<END\n{{ inputs.x }}\nEND",
    "alias e=eval\ne {{ inputs.x }}",
    "env {{ inputs.x }}",
    "env A=1 {{ inputs.x }}",
    "env -S{{ inputs.x }}",
    "xargs {{ inputs.x }}",
    "timeout 5 {{ inputs.x }}",
    "nice -n 5 {{ inputs.x }}",
    "find . -exec {{ inputs.x }} {} +",
    "find . -exec sh -c '{{ inputs.x }}' +",
    "sh {{ inputs.x }} {{ inputs.x }}",
    "sh -{{ inputs.x }} 'a'",
    "python3 {{ inputs.x }}",
    "perl {{ inputs.x }}",
    "printf {{ inputs.x }} a",
    "printf -v {{ inputs.x }} a",
    "[ {{ inputs.x }} {{ inputs.x }} ]",
    "test -v {{ inputs.x }}",
    "[ -R {{ inputs.x }} ]",
    "[[ {{ inputs.x }} -eq 1 ]]",
    "declare -i n={{ inputs.x }}",
    "let n={{ inputs.x }}",
    "unset {{ inputs.x }}",
    "read {{ inputs.x }}",
    "compgen {{ inputs.x }}",
    "a[{{ inputs.x }}]=1",
    "BASH_ENV={{ inputs.x }} bash -c :",
    "export BASH_ENV={{ inputs.x }}; bash -c :",
    "env BASH_ENV={{ inputs.x }} bash -c :",
    "PS4={{ inputs.x }} sh -xc :",
    "PATH={{ inputs.x }} ls",
    "LD_PRELOAD=./{{ inputs.x }} ls",
    "./tool-{{ inputs.x }}",
    "{{ inputs.x }}",
    "'{{ inputs.x }}' a",
    "trap '{{ inputs.x }}' EXIT",
    "trap \"{{ inputs.x }}\" EXIT",
    ". ./{{ inputs.x }}",
    "f() { eval \"$1\"; }; f {{ inputs.x }}",
    "set -- {{ inputs.x }}",
    "echo $'a\\'{{ inputs.x }}'",
    "echo `echo {{ inputs.x }}`",
    "echo ${V:-{{ inputs.x }}}",
    "echo ${V:-\"{{ inputs.x }}\"}",
    "cat <<END\n{{ inputs.x }}\nEND",
    "bash <<END\necho '{{ inputs.x }}'\nEND",
    "echo a # {{ inputs.x }}",
];

fn graph(command: &str) -> String {
    let parameter = json!({"name": "x", "type": "string", "required": true});
    json!({"name": "g", "parameters": [parameter], "nodes": [{"id": "a", "type": "shell", "command": command}]})
        .to_string()
}

fn codes(command: &str) -> Vec<String> {
    let read = read_graph(&graph(command));
    read.findings.into_iter().map(|finding| finding.code).collect()
}

/// What is run for a value: a program with its arguments.
fn argv(command: &str, value: &str) -> Vec<String> {
    let read = read_graph(&graph(command));
    assert_eq!(read.findings, [], "{command}");
    let plan = Plan::of_graph("sha256:0", &read.graph, &BTreeMap::new(), &Limits::default()).unwrap();
    let known = json!({"inputs": {"x": value}});
    let inputs = filled(plan.steps[0].inputs.as_ref().unwrap(), &[][..], &known).unwrap();
    let words = inputs["argv"].as_array().unwrap().iter().map(Value::as_str);
    words.map(|word| word.unwrap().to_owned()).collect()
}

#[test]
fn a_value_that_could_be_code_is_refused() {
    let wrong: Vec<_> = REFUSED
        .iter()
        .filter(|command| !codes(command).iter().any(|code| code == "shell_interpolation"))
        .collect();
    assert!(wrong.is_empty(), "let through: {wrong:#?}");
}

/// In which variables a value may stand.
#[test]
fn a_variable_that_decides_what_runs_is_not_worked_out() {
    let codes = |name: &str, value: Value| {
        let node = json!({"id": "a", "type": "shell", "command": "bash run.sh", "environment": {name: value}});
        let read = read_graph(&json!({"name": "g", "parameters": [{"name": "x"}], "nodes": [node]}).to_string());
        read.findings
            .into_iter()
            .map(|finding| finding.code)
            .collect::<Vec<_>>()
    };
    for name in [
        "BASH_ENV",
        "PS4",
        "LD_PRELOAD",
        "PATH",
        "GIT_SSH_COMMAND",
        "BASH_FUNC_ls%%",
    ] {
        for value in [json!({"$": "inputs.x"}), json!({"$text": "/opt/{{ inputs.x }}"})] {
            let found = codes(name, value);
            assert!(
                found.iter().any(|code| code == "shell_interpolation"),
                "{name}: {found:?}"
            );
        }
    }
    assert_eq!(codes("PATH", json!("/opt/bin:/usr/bin:/bin")), [""; 0]);
    assert_eq!(codes("NAME", json!({"$": "inputs.x"})), [""; 0]);
}

#[test]
fn what_is_let_through_gives_the_program_the_value_in_every_shell() {
    let shells: &[(&str, &[&str])] = &[
        ("/bin/sh", &[]),
        ("/usr/bin/bash", &["--posix"]),
        ("/usr/bin/busybox", &["sh"]),
    ];
    let mut wrong = String::new();
    let mut tried = 0;
    for (command, shown) in LET_THROUGH {
        for value in HOSTILE {
            let argv = argv(command, value);
            assert_eq!(argv[..2], ["/bin/sh", "-c"], "{command}");
            for (shell, options) in shells.iter().filter(|(shell, _)| Path::new(shell).exists()) {
                let folder = tempfile::tempdir().unwrap();
                #[expect(clippy::disallowed_methods, reason = "the shell that is tested")]
                let output = Command::new(shell)
                    .args(*options)
                    .args(&argv[1..])
                    .current_dir(folder.path())
                    .env_clear()
                    .env("PATH", "/usr/bin:/bin")
                    .stdin(Stdio::null())
                    .output()
                    .unwrap();
                tried += 1;
                let said = String::from_utf8_lossy(&output.stdout);
                let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
                if (*shown != "?" && said != shown.replace("{}", value)) || !left.is_empty() {
                    let complaint = String::from_utf8_lossy(&output.stderr);
                    wrong += &format!("{shell} {command:?} of {value:?} said {said:?} {complaint} and left {left:?}\n");
                }
            }
        }
    }
    assert!(tried >= LET_THROUGH.len() * HOSTILE.len(), "{tried}");
    assert!(wrong.is_empty(), "{wrong}");
}
