//! A command line of a shell step: its interpolations become positional parameters of `sh -c`, so that no value is ever read as
//! code.
//!
//! The quoting of POSIX.1-2017, Shell Command Language, section 2.2: bare, `'…'`, `"…"`, and `\` before a character. Where an
//! interpolation stands in anything that the shell reads as code once more, or where what it stands in can't be told, there is a
//! finding, and nothing runs.

use super::template::code_end;
use crate::domain::Script;

/// What is wrong with a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellError {
    /// In one sentence.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

/// What a part of a command line stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum In {
    Single,
    Double,
    /// `$(…)`, with how many parentheses are open in it.
    Substitution(u32),
    /// `${…}`
    Parameter,
    Backtick,
}

/// Words after which a command begins.
const BEFORE_COMMANDS: &[&str] = &["if", "then", "else", "elif", "while", "until", "do", "!", "{"];
/// Words of the shell's grammar, and what it does by itself without starting a program or running text as code.
const BY_ITSELF: &[&str] = &[
    ":", "cd", "exit", "export", "unset", "read", "wait", "umask", "return", "readonly", "ulimit", "pwd", "fi", "done",
    "esac", "}", "break", "continue",
];
/// Commands that start the command behind them.
const STARTS_ANOTHER: &[&str] = &["exec", "command", "builtin", "time", "coproc"];
/// Programs that start the program which is an argument of theirs.
const LAUNCHERS: &[&str] = &[
    "env", "nohup", "nice", "timeout", "xargs", "setsid", "stdbuf", "sudo", "doas", "chroot", "watch", "flock",
];
/// Commands that read their arguments as code, or change the parameters.
const READS_AGAIN: &[&str] = &[
    "eval", ".", "source", "trap", "alias", "set", "shift", "enable", "bind", "complete", "compgen", "fc", "history",
];
/// Those that would make of a variable, or of a word, what an interpolation has put there.
const UNTRACED: &[&str] = &["eval", "alias"];
/// Variables that a shell, the loader or an interpreter runs or loads something from.
const RUNS_SOMETHING: &[&str] = &[
    "BASH_ENV",
    "ENV",
    "PS4",
    "PS1",
    "PS2",
    "PROMPT_COMMAND",
    "SHELLOPTS",
    "BASHOPTS",
    "IFS",
    "PATH",
    "CDPATH",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "GCONV_PATH",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PYTHONHOME",
    "PERL5OPT",
    "PERL5LIB",
    "RUBYOPT",
    "RUBYLIB",
    "NODE_OPTIONS",
    "NODE_PATH",
    "JAVA_TOOL_OPTIONS",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_EXTERNAL_DIFF",
    "GIT_PAGER",
    "GIT_EDITOR",
    "PAGER",
    "EDITOR",
    "VISUAL",
    "LESSOPEN",
];
/// Commands whose arguments are names of variables, or sums; some shells look for commands in them.
const NAMES_VARIABLES: &[&str] = &[
    "unset",
    "read",
    "let",
    "getopts",
    "[[",
    "declare",
    "typeset",
    "local",
    "mapfile",
    "readarray",
];
/// The same, but for what stands behind `=`.
const ASSIGNS: &[&str] = &["export", "readonly"];
/// Programs that run an argument as code, the one behind `-c`, `-e` and the like.
const INTERPRETERS: &[&str] = &[
    "sh", "bash", "dash", "ash", "zsh", "ksh", "su", "script", "busybox", "perl", "ruby", "node", "php", "lua", "pwsh",
];
/// Programs whose first argument is code that can start others.
const SCRIPTED: &[&str] = &["awk", "gawk", "mawk", "nawk", "sed", "gsed"];
/// Options of these that something other than code follows.
const NOT_CODE: &[&str] = &["-v", "-F", "--assign", "--field-separator", "-l", "--line-length"];

struct Lexer<'a> {
    text: &'a str,
    script: Script,
    errors: Vec<ShellError>,
    stack: Vec<In>,
    /// The word that is being read, as far as it is literal; none outside of words.
    word: Option<String>,
    /// Whether the word holds what can't be told.
    is_open: bool,
    /// Whether the next word is a command's name.
    wants_command: bool,
    /// The words of the command whose arguments are read, as far as they are literal; its name is the first.
    words: Vec<String>,
    /// Whether the word before was `exec` or the like.
    starts_another: bool,
    /// Whether the next word is a file of `<` or `>`.
    is_file: bool,
    /// Delimiters of here-documents that begin behind this line, whether tabs before them don't count, and whether what is in them
    /// is expanded.
    documents: Vec<(String, bool, bool)>,
    /// What makes the quoting uncertain.
    unclear: Option<&'static str>,
    /// Where the outermost substitution begins in what `sh` gets.
    substitution: usize,
    programs: Vec<String>,
    is_known: bool,
    has_function: bool,
}

/// Reads a command line.
///
/// # Errors
/// Everything that keeps its interpolations from being parameters.
pub fn script(text: &str) -> Result<Script, Vec<ShellError>> {
    let mut lexer = Lexer {
        text,
        script: Script::default(),
        errors: Vec::new(),
        stack: Vec::new(),
        word: None,
        is_open: false,
        wants_command: true,
        words: Vec::new(),
        starts_another: false,
        is_file: false,
        documents: Vec::new(),
        unclear: None,
        substitution: 0,
        programs: Vec::new(),
        is_known: true,
        has_function: false,
    };
    lexer.read();
    lexer.finish()
}

impl Lexer<'_> {
    fn wrong(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        let error = ShellError {
            message: message.into(),
            hint: hint.into(),
        };
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    fn read(&mut self) {
        let bytes = self.text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let rest = &self.text[at..];
            let top = self.stack.last().copied();
            if top.is_none() && rest.starts_with('\n') && !self.documents.is_empty() {
                at += self.here_documents(rest);
                continue;
            }
            if rest.starts_with("{{") {
                match code_end(self.text, at + 2, "}}") {
                    Some(end) => {
                        let code = self.text[at + 2..end].trim().to_owned();
                        self.interpolation(&code, top);
                        at = end + 2;
                    }
                    None => {
                        self.wrong("`{{` is not closed by `}}`", "close it, or write `{` and `{` apart");
                        return;
                    }
                }
                continue;
            }
            if rest.starts_with("{%") || rest.starts_with("{#") {
                self.wrong(
                    format!("`{}` has no meaning in a command", &rest[..2]),
                    "decide with `when` which of two steps runs, or work the text out in a step of type `template`",
                );
            }
            at += match top {
                Some(In::Single) => self.single(rest),
                Some(In::Double) => self.double(rest),
                _ => self.bare(rest, top),
            };
        }
        self.end_word();
    }

    /// One character as it stands.
    fn keep(&mut self, rest: &str) -> usize {
        let length = rest.chars().next().map_or(1, char::len_utf8);
        self.script.text.push_str(&rest[..length]);
        length
    }

    fn literal(&mut self, rest: &str) -> usize {
        let length = self.keep(rest);
        self.word.get_or_insert_default().push_str(&rest[..length]);
        length
    }

    fn single(&mut self, rest: &str) -> usize {
        if rest.starts_with('\'') {
            self.stack.pop();
            return self.keep(rest);
        }
        self.literal(rest)
    }

    fn double(&mut self, rest: &str) -> usize {
        match rest.as_bytes()[0] {
            b'"' => {
                self.stack.pop();
                self.keep(rest)
            }
            b'\\' => self.escaped(rest),
            b'$' => self.dollar(rest),
            b'`' => self.backtick(rest),
            _ => self.literal(rest),
        }
    }

    fn escaped(&mut self, rest: &str) -> usize {
        let behind = &rest[1..];
        if behind.starts_with("{{") {
            self.wrong(
                "a `\\` stands before an interpolation",
                "take it out: what is interpolated needs no quoting",
            );
        }
        if behind.starts_with('\n')
            && self
                .script
                .text
                .ends_with(['$', '<', '>', '&', '|', '(', '{', ';', '`'])
        {
            self.unclear = Some("a `\\` at the end of a line that parts what belongs together");
        }
        let length = self.keep(rest);
        match behind.chars().next() {
            Some('\n') => length + self.keep(behind),
            Some(_) if !behind.starts_with("{{") => length + self.literal(behind),
            _ => length,
        }
    }

    /// Here-documents, from the end of the line that names them on.
    fn here_documents(&mut self, rest: &str) -> usize {
        self.end_word();
        self.next_command();
        let mut length = self.keep(rest);
        for (delimiter, strips_tabs, expands) in std::mem::take(&mut self.documents) {
            let mut found = false;
            for line in rest[length..].split_inclusive('\n') {
                length += line.len();
                self.script.text.push_str(line);
                let bare = line.strip_suffix('\n').unwrap_or(line);
                let bare = if strips_tabs {
                    bare.trim_start_matches('\t')
                } else {
                    bare
                };
                if bare == delimiter {
                    found = true;
                    break;
                }
                if line.contains("{{") {
                    self.wrong(
                        "an interpolation stands in a here-document",
                        "write the text with a step of type `template`, and give it to the program in `environment` or as an argument",
                    );
                }
                self.is_known &= !expands || !(line.contains("$(") || line.contains('`'));
            }
            if !found {
                self.wrong(
                    format!("the here-document is not closed by `{delimiter}`"),
                    "write its end on a line of its own",
                );
            }
        }
        length
    }

    /// The delimiter of a here-document, behind `<<`.
    fn delimiter(&mut self, rest: &str) -> usize {
        let strips_tabs = rest.starts_with("<<-");
        let mut at = if strips_tabs { 3 } else { 2 };
        at += rest[at..].len() - rest[at..].trim_start_matches([' ', '\t']).len();
        let end = rest[at..]
            .find(|c: char| c.is_whitespace() || matches!(c, ';' | '&' | '|' | '<' | '>' | '(' | ')'))
            .map_or(rest.len(), |end| at + end);
        let written = &rest[at..end];
        let quotes = ['\'', '"', '\\'];
        let delimiter = written.replace(quotes, "");
        if written.contains(['$', '`', '{']) || delimiter.is_empty() {
            self.wrong(
                "the end of the here-document can't be told",
                "write `<<` and a word of letters, as `<<END`",
            );
        }
        self.documents.push((delimiter, strips_tabs, !written.contains(quotes)));
        self.script.text.push_str(&rest[..end]);
        end
    }

    fn next_command(&mut self) {
        self.wants_command = true;
        self.starts_another = false;
        self.is_file = false;
        self.words.clear();
    }

    fn dollar(&mut self, rest: &str) -> usize {
        self.is_open = true;
        self.word.get_or_insert_default();
        let is_double = self.stack.last() == Some(&In::Double);
        if rest.starts_with("$'") && !is_double {
            self.unclear = Some("`$'`");
        }
        if rest.starts_with("$[") {
            self.unclear = Some("`$[`");
        }
        let name = rest[1..].trim_start_matches('{');
        if name.starts_with(|c: char| matches!(c, '1'..='9' | '@' | '*'))
            || (name.starts_with('#') && !name[1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
        {
            self.unclear = Some("a parameter of the shell, as `$1`, `$@` or `$#`,");
        }
        let (kind, length) = if rest.starts_with("$(") {
            (Some(In::Substitution(0)), 2)
        } else if rest.starts_with("${") && !rest.starts_with("${{") {
            (Some(In::Parameter), 2)
        } else {
            if rest[1..].starts_with("{{") {
                self.wrong(
                    "a `$` stands before an interpolation",
                    "take it out: the value of an interpolation is never the name of a variable",
                );
            }
            (None, 1)
        };
        self.script.text.push_str(&rest[..length]);
        if let Some(kind) = kind {
            if !self.stack.iter().any(|kind| matches!(kind, In::Substitution(_))) {
                self.substitution = self.script.text.len();
            }
            self.stack.push(kind);
            if matches!(kind, In::Substitution(_)) {
                // What is started in there can't be told here.
                self.is_known = false;
            }
        }
        length
    }

    fn backtick(&mut self, rest: &str) -> usize {
        self.is_open = true;
        self.is_known = false;
        if self.stack.last() == Some(&In::Backtick) {
            self.stack.pop();
        } else {
            self.stack.push(In::Backtick);
        }
        self.keep(rest)
    }

    fn bare(&mut self, rest: &str, top: Option<In>) -> usize {
        let byte = rest.as_bytes()[0];
        if matches!(byte, b'\'' | b'"' | b'\\') && matches!(top, Some(In::Parameter | In::Backtick)) {
            self.unclear = Some("a quote inside of backticks or `${…}`");
        }
        match (byte, top) {
            (b'\'', _) => {
                self.word.get_or_insert_default();
                self.stack.push(In::Single);
                return self.keep(rest);
            }
            (b'"', _) => {
                self.word.get_or_insert_default();
                self.stack.push(In::Double);
                return self.keep(rest);
            }
            (b'\\', _) => return self.escaped(rest),
            (b'$', _) => return self.dollar(rest),
            (b'`', _) => return self.backtick(rest),
            (b'}', Some(In::Parameter)) => {
                self.stack.pop();
                return self.keep(rest);
            }
            (_, Some(In::Parameter | In::Backtick)) => return self.keep(rest),
            (b'(', Some(In::Substitution(depth))) => {
                self.set_top(In::Substitution(depth + 1));
                return self.keep(rest);
            }
            (b')', Some(In::Substitution(0))) => {
                self.stack.pop();
                let inside = &self.script.text[self.substitution..];
                if ["case", "<<", " #", "\t#", "\n#"]
                    .iter()
                    .any(|text| inside.contains(text))
                {
                    self.unclear = Some("`case`, `<<` or a comment inside of `$(…)`");
                }
                if inside.starts_with('(') && inside.contains(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    self.unclear = Some("a sum of variables, in which some shells look for commands,");
                }
                if inside.contains("eval") {
                    self.unclear = Some("`eval`");
                }
                return self.keep(rest);
            }
            (b')', Some(In::Substitution(depth))) => {
                self.set_top(In::Substitution(depth - 1));
                return self.keep(rest);
            }
            (_, Some(In::Substitution(_))) => return self.keep(rest),
            _ => {}
        }
        match byte {
            b'#' if self.word.is_none() => {
                let end = rest.find('\n').unwrap_or(rest.len());
                if rest[..end].contains("{{") {
                    self.wrong(
                        "an interpolation stands in a comment",
                        "take the comment out of the command; YAML has comments of its own",
                    );
                }
                self.script.text.push_str(&rest[..end]);
                end
            }
            b'<' if rest.starts_with("<<<") => {
                self.end_word();
                self.is_file = true;
                self.script.text.push_str("<<<");
                3
            }
            b'<' if rest.starts_with("<<") => {
                self.end_word();
                self.delimiter(rest)
            }
            b' ' | b'\t' => {
                self.end_word();
                self.keep(rest)
            }
            b'(' if rest[1..].trim_start().starts_with(')') => {
                self.has_function = true;
                self.word = None;
                self.next_command();
                let length = rest.find(')').map_or(1, |end| end + 1);
                self.script.text.push_str(&rest[..length]);
                length
            }
            b'\n' | b';' | b'&' | b'|' | b'(' | b')' => {
                if rest.starts_with("((") {
                    self.unclear = Some("`((`, behind which some shells look for a sum,");
                }
                self.end_word();
                self.next_command();
                self.keep(rest)
            }
            b'<' | b'>' => {
                let is_descriptor = |word: &String| {
                    word.bytes().all(|byte| byte.is_ascii_digit())
                        || (word.starts_with('{') && word.ends_with('}') && word.len() > 2)
                };
                if !self.is_open && self.word.as_ref().is_some_and(is_descriptor) {
                    // It belongs to the redirection, and is no word of the command.
                    self.word = None;
                }
                self.end_word();
                self.is_file = true;
                let length = self.keep(rest);
                if rest[1..].starts_with('&') || rest.starts_with(">|") {
                    return length + self.keep(&rest[1..]);
                }
                length
            }
            _ => self.literal(rest),
        }
    }

    fn set_top(&mut self, kind: In) {
        if let Some(top) = self.stack.last_mut() {
            *top = kind;
        }
    }

    fn interpolation(&mut self, code: &str, top: Option<In>) {
        let shown: String = code.chars().take(60).collect();
        // Also in quotes in there: what a command inside of it does with a word is looked at outside only.
        let place = self.stack.iter().find_map(|kind| match kind {
            In::Substitution(_) => Some("inside of `$(…)`"),
            In::Backtick => Some("inside of backticks"),
            In::Parameter => Some("inside of `${…}`"),
            _ => None,
        });
        if let Some(place) = place {
            self.wrong(
                format!("`{{{{ {shown} }}}}` stands {place}, where its value would be read as code"),
                "give it a name before: `environment: {VALUE: \"{{ … }}\"}`, and write `\"$VALUE\"` in the command",
            );
        }
        let begun = self.word.clone().unwrap_or_default();
        if place.is_none() && self.wants_command && !self.is_file && !is_assignment(&begun) {
            self.wrong(
                format!("`{{{{ {shown} }}}}` would be the name of the program, or a part of it"),
                "write the program, or use the list form: `command: [\"{{ … }}\", \"argument\"]`",
            );
        }
        if let Some(name) = runs_something(&begun) {
            self.wrong(
                format!("`{{{{ {shown} }}}}` would be the value of `{name}`, from which programs take what they run"),
                "write that value, and choose between values with `when`",
            );
        }
        if let Some((message, hint)) = self.read_again(&begun, code) {
            self.wrong(format!("`{{{{ {shown} }}}}` {message}"), hint);
        }
        self.script.parameters.push(code.to_owned());
        let number = self.script.parameters.len();
        let name = format!("${{{number}}}");
        match top {
            Some(In::Single) => self.script.text.push_str(&format!("'\"{name}\"'")),
            Some(In::Double) => self.script.text.push_str(&name),
            _ => self.script.text.push_str(&format!("\"{name}\"")),
        }
        self.word.get_or_insert_default();
        self.is_open = true;
    }

    /// Why the command reads what is interpolated as code, and what to write. `begun` is what stands before it in its word.
    fn read_again(&self, begun: &str, code: &str) -> Option<(String, String)> {
        if self.wants_command || self.is_file {
            return None;
        }
        let first = self.words.first()?.as_str();
        if is_one_of(first, READS_AGAIN) {
            return Some((
                format!("is an argument of `{first}`, which reads it as code"),
                format!("write the command without `{first}`"),
            ));
        }
        let behind = |options: &[&str]| self.words.iter().any(|word| is_one_of(word, options));
        if is_one_of(first, NAMES_VARIABLES)
            || (is_one_of(first, ASSIGNS) && !is_assignment(begun))
            || (is_one_of(first, &["printf", "test", "["]) && behind(&["-v", "-R"]))
        {
            return Some((
                format!("would be the name of a variable for `{first}`"),
                "write the name, and give only its value by an interpolation: `NAME={{ … }}`".to_owned(),
            ));
        }
        let may_be_option = begun.is_empty() || begun.starts_with('-');
        if first == "printf" && self.words.len() == 1 && may_be_option {
            return Some((
                "would be the format of `printf`, or an option".to_owned(),
                "write the format: `printf '%s' {{ … }}`".to_owned(),
            ));
        }
        if is_one_of(first, &["test", "["]) && self.words.len() > 1 && self.words.last().is_some_and(String::is_empty) {
            return Some((
                format!("would be an operator of `{first}`"),
                "write the operator between the two".to_owned(),
            ));
        }
        if self
            .words
            .last()
            .is_some_and(|last| is_one_of(last, &["-exec", "-execdir", "-ok", "-okdir"]))
        {
            return Some((
                "would be the name of the program".to_owned(),
                "write the program behind `-exec`".to_owned(),
            ));
        }
        let bases = || self.words.iter().map(|word| word.rsplit('/').next().unwrap_or(word));
        let last = self.words.last().map_or("", String::as_str);
        if let Some(program) = bases().find(|name| is_interpreter(name))
            && (takes_code(last) || holds_code(begun))
        {
            return Some((
                format!("stands in code that `{program}` runs"),
                "give it to the code as an argument: `sh -c 'echo \"$1\"' sh {{ … }}`".to_owned(),
            ));
        }
        if let Some(place) = bases().position(is_interpreter)
            && may_be_option
            && self.words[place + 1..].iter().all(|word| word.starts_with('-'))
        {
            return Some((
                format!("would be what `{}` runs, or an option of it", self.words[place]),
                "write the name of the script, or begin it with a folder: `scripts/{{ … }}`".to_owned(),
            ));
        }
        if let Some(place) = bases().position(|name| is_one_of(name, LAUNCHERS))
            && place == 0
            && !self.words[1..].iter().any(|word| is_program(word))
        {
            let message = format!("may be an option of `{first}`, or the program that it starts");
            return Some((message, format!("write the options and the program of `{first}`")));
        }
        if let Some(place) = bases().position(|name| is_one_of(name, SCRIPTED)) {
            let mut arguments = self.words[place + 1..].iter().peekable();
            let mut has_script = false;
            while let Some(argument) = arguments.next() {
                if is_one_of(argument, NOT_CODE) {
                    arguments.next();
                } else {
                    has_script |= !argument.starts_with('-');
                }
            }
            let is_code =
                !has_script && !begun.starts_with("-v") && !begun.starts_with("-F") && !is_one_of(last, NOT_CODE);
            if is_code || is_one_of(last, &["-e", "--expression", "-f", "--file", "--source"]) {
                return Some((
                    format!(
                        "stands in the script of `{}`, which can start programs",
                        self.words[place]
                    ),
                    "give it as a value, `awk -v name={{ … }} '…'`, or work the text out in a step of type `template`"
                        .to_owned(),
                ));
            }
        }
        if let Some(place) = bases().position(|name| name == "ssh")
            && self.words[place + 1..].iter().any(|word| !word.starts_with('-'))
            && !code.trim_end().ends_with("shell_quote")
        {
            return Some((
                "is read by the shell at the other end of `ssh`".to_owned(),
                "quote it for that shell: `{{ … | shell_quote }}`".to_owned(),
            ));
        }
        None
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        let is_open = std::mem::take(&mut self.is_open);
        if std::mem::take(&mut self.is_file) {
            return;
        }
        if !self.wants_command {
            if is_open
                && self.words.last().is_some_and(|last| takes_code(last))
                && self
                    .words
                    .iter()
                    .any(|word| is_interpreter(word.rsplit('/').next().unwrap_or(word)))
            {
                self.unclear = Some("code that is put together from variables");
            }
            if word == "do" && self.words.len() == 2 && self.words[0] == "for" {
                self.next_command();
                return;
            }
            self.words.push(word);
            return;
        }
        if is_assignment(&word) {
            return;
        }
        if is_open {
            self.is_known = false;
            self.wants_command = false;
            self.words.push(word);
            return;
        }
        if is_one_of(&word, BEFORE_COMMANDS) {
            return;
        }
        if self.starts_another && word.starts_with('-') {
            // Its options may have arguments.
            self.is_known = false;
            return;
        }
        self.starts_another = is_one_of(&word, STARTS_ANOTHER);
        if self.starts_another {
            return;
        }
        self.has_function |= word == "function";
        self.wants_command = false;
        match word.as_str() {
            // Names, words and patterns follow; the commands in it begin after `do`, `)` and `;`.
            "for" | "case" | "in" => {}
            name if is_one_of(name, BY_ITSELF) => {}
            name => {
                self.programs.push(name.rsplit('/').next().unwrap_or(name).to_owned());
                // A path may be any program.
                self.is_known &= !name.contains('/') && !is_one_of(name, READS_AGAIN);
            }
        }
        self.words.push(word);
    }

    fn finish(mut self) -> Result<Script, Vec<ShellError>> {
        if self.has_function && !self.script.parameters.is_empty() {
            self.wrong(
                "the command defines a function, in which the parameters of `sh` have another meaning",
                "put the function into a script of the workspace, or take the interpolations out",
            );
        }
        let changes = self
            .programs
            .iter()
            .any(|name| matches!(name.as_str(), "set" | "shift"));
        if changes && !self.script.parameters.is_empty() {
            self.wrong(
                "the command changes the parameters of `sh` by `set` or `shift`, and interpolations are such parameters",
                "take `set` or `shift` out, or give values in `environment`",
            );
        }
        if let Some(name) = self.programs.iter().find(|name| is_one_of(name, UNTRACED))
            && !self.script.parameters.is_empty()
        {
            let hint = format!("write the command without `{name}`");
            // An interpolation among its arguments has said so already.
            if !self.errors.iter().any(|error| error.hint == hint) {
                let message = format!("`{name}` stands in a command with interpolations, and may read them as code");
                self.wrong(message, hint);
            }
        }
        if let (Some(what), false) = (self.unclear, self.script.parameters.is_empty()) {
            self.wrong(
                format!("{what} stands in a command with interpolations, so what is quoted can't be told for certain"),
                "put what is interpolated into `environment`, or that part of the command into a step of its own",
            );
        }
        if let Some((delimiter, ..)) = self.documents.first() {
            self.wrong(
                format!("the here-document is not closed by `{delimiter}`"),
                "write its end on a line of its own",
            );
        }
        if let Some(open) = self.stack.last() {
            let what = match open {
                In::Single => "`'`",
                In::Double => "`\"`",
                In::Substitution(_) => "`$(`",
                In::Parameter => "`${`",
                In::Backtick => "a backtick",
            };
            self.wrong(format!("{what} is opened and not closed"), "close it");
        }
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        self.programs.sort();
        self.programs.dedup();
        self.script.programs = self.is_known.then_some(self.programs);
        Ok(self.script)
    }
}

fn is_one_of(word: &str, words: &[&str]) -> bool {
    words.contains(&word)
}

fn is_interpreter(name: &str) -> bool {
    is_one_of(name, INTERPRETERS) || name.starts_with("python")
}

/// Whether a word behind a launcher can be told to be the program: no option, no variable, no number.
fn is_program(word: &str) -> bool {
    !word.starts_with('-') && !word.contains('=') && word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
}

/// The variable that a word gives a value to, where programs take what they run from it.
fn runs_something(word: &str) -> Option<&str> {
    let (name, _) = word.split_once('=')?;
    decides_what_runs(name).then_some(name)
}

/// Whether programs take what they run or load from a variable of this name.
pub fn decides_what_runs(name: &str) -> bool {
    is_one_of(name, RUNS_SOMETHING) || name.starts_with("BASH_FUNC_") || name.starts_with("GIT_CONFIG")
}

/// Whether code follows an option of an interpreter: `-c`, `-lc`, `-e`, `--eval`.
fn takes_code(option: &str) -> bool {
    match option.strip_prefix('-') {
        Some(long) if long.starts_with('-') => matches!(long, "-eval" | "-print" | "-command" | "-run"),
        Some(short) => short.ends_with(['c', 'e', 'E', 'r', 'p']),
        None => false,
    }
}

/// Whether code stands right behind such an option, in the same word: `-pes/a/b/`.
fn holds_code(word: &str) -> bool {
    let options = word.strip_prefix('-').filter(|options| !options.starts_with('-'));
    options.is_some_and(|options| options.chars().take(3).any(|option| "ceErp".contains(option)))
}

/// `NAME=…`
fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn interpolations_are_parameters() {
        for (text, expected) in [
            ("echo 'Hello {{ inputs.name }}!'", "echo 'Hello '\"${1}\"'!'"),
            ("echo \"a {{ x }} b\" {{ y }}", "echo \"a ${1} b\" \"${2}\""),
            (
                "kubectl apply -f k8s/{{ inputs.environment }}/",
                "kubectl apply -f k8s/\"${1}\"/",
            ),
            (
                "A={{ x }} printf %s \"$A\" # done",
                "A=\"${1}\" printf %s \"$A\" # done",
            ),
            ("echo {{ '}}' ~ x }}", "echo \"${1}\""),
            ("cat <<E\nit's\nE\necho {{ x }}", "cat <<E\nit's\nE\necho \"${1}\""),
            ("> {{ x }} echo a", "> \"${1}\" echo a"),
            ("exec tool {{ x }}", "exec tool \"${1}\""),
            ("sh -c 'echo \"$1\"' sh {{ x }}", "sh -c 'echo \"$1\"' sh \"${1}\""),
            (
                "awk -v n={{ x }} '{ print $1, n }' {{ y }}",
                "awk -v n=\"${1}\" '{ print $1, n }' \"${2}\"",
            ),
            ("ssh host rm {{ x | shell_quote }}", "ssh host rm \"${1}\""),
            ("export A={{ x }}; echo \"${#A}\"", "export A=\"${1}\"; echo \"${#A}\""),
            ("sed -n 1p {{ x }}", "sed -n 1p \"${1}\""),
        ] {
            assert_eq!(script(text).unwrap().text, expected, "{text}");
        }
        assert_eq!(script("echo {{ a }}{{ b }}").unwrap().parameters, ["a", "b"]);
    }

    #[test]
    fn what_would_be_read_as_code_is_refused() {
        for text in [
            "echo $(cat {{ x }})",
            "echo `cat {{ x }}`",
            "echo ${A:-{{ x }}}",
            "echo \"$(cat {{ x }})\"",
            "{{ x }} --help",
            "true && {{ x }}",
            "echo a # {{ x }}",
            "cat <<E\n{{ x }}\nE",
            "eval {{ x }}",
            "eval \"echo {{ x }}\"",
            ". {{ x }}",
            "echo \\{{ x }}",
            "echo ${{ x }}",
            "f() { echo {{ x }}; }; f",
            "set -- a; echo {{ x }}",
            "echo '{{ x }}",
            "echo {{ x",
            "echo $(( {{ x }} + 1 ))",
            "if {{ x }}; then ls; fi",
            "echo \"`id {{ x }}`\"",
            "{% if x %}ls{% endif %}",
            "trap {{ x }} EXIT",
            "echo $((1 + (2 * {{ x }})))",
            "echo {{ x }} && ./tool-{{ y }}",
            "\"{{ x }}\" a",
            "sh -c 'echo {{ x }}'",
            "env A=1 bash -lc \"ls {{ x }}\"",
            "python3 -c 'print(\"{{ x }}\")'",
            "xargs sh -c '{{ x }}'",
            "perl -pe's/a/{{ x }}/' file",
            "sed s/a/{{ x }}/ file",
            "sed -i -e 's/a/{{ x }}/' file",
            "awk '/{{ x }}/' file",
            "ssh host rm {{ x }}",
            "export {{ x }}",
            "unset {{ x }}",
            "[[ {{ x }} -eq 1 ]]",
            "printf -v {{ x }} a",
            "read {{ x }}",
            "command eval {{ x }}",
            "exec {{ x }}",
            "f () { echo {{ x }}; }; f",
            "function f { echo {{ x }}; }",
            "echo $'it\\'s' {{ x }}",
            "echo \"${A:-it's}\" {{ x }}",
            "echo $1 {{ x }}",
            "printf %s \"$@\" {{ x }}",
            "echo $(case a in a) echo b;; esac) {{ x }}",
            "echo `echo \"a\"` {{ x }}",
            "cat <<'E'\n{{ x }}\nE",
            "cat <<-E\n\t{{ x }}\n\tE",
            "cat <<E\na",
            "cat <<$E\na",
        ] {
            assert!(script(text).is_err(), "{text}: {:?}", script(text));
        }
    }

    #[test]
    fn programs_are_told_where_they_can_be() {
        let programs = |text: &str| script(text).unwrap().programs;
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(programs("npm test"), names(&["npm"]));
        assert_eq!(
            programs("cd a && A=1 git pull | grep -c x; if test -f b; then cat b > c; fi"),
            names(&["cat", "git", "grep", "test"])
        );
        assert_eq!(programs("for f in a b; do wc $f; done"), names(&["wc"]));
        assert_eq!(
            programs("bash -c 'rm x'"),
            names(&["bash"]),
            "what it starts is its own affair"
        );
        assert_eq!(programs("> log exec curl"), names(&["curl"]));
        assert_eq!(programs("cat <<'E'\nit's `x`\nE\nls"), names(&["cat", "ls"]));
        for text in [
            "$A b",
            "echo $(id)",
            "./tool",
            "echo a; `b`",
            "exec -a echo curl",
            "cat <<E\n$(id)\nE",
        ] {
            assert_eq!(programs(text), None, "{text}");
        }
    }

    /// What the shell's program sees, by the real shell.
    fn words(text: &str, values: &[String]) -> Vec<u8> {
        let script = script(text).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the shell that is tested")]
        let output = Command::new("/bin/sh")
            .arg("-c")
            .arg(&script.text)
            .arg("sh")
            .args(values)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{text}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    fn hostile() -> impl Strategy<Value = String> {
        let known = prop::sample::select(vec![
            "; touch /tmp/weft-was-here #",
            "$(touch /tmp/weft-was-here)",
            "`touch /tmp/weft-was-here`",
            "' ; id ; '",
            "\" ; id ; \"",
            "a\nb",
            "*",
            "~",
            "-rf",
            "\\",
            "'",
            "\"",
            "$HOME",
            "${IFS}",
            "&& id",
            "| id",
            "> /tmp/weft-was-here",
            "{{ x }}",
            "ä\u{1F600}",
            "",
            "!!",
            "%s%n",
            "\t ",
        ]);
        prop_oneof![known.prop_map(str::to_owned), "[^\u{0}]{0,12}"]
    }

    #[test]
    fn none_of_the_known_attempts_gets_through() {
        let read = |name: &str| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/golden/injection")
                .join(name);
            serde_json::from_str::<Vec<serde_json::Value>>(&std::fs::read_to_string(path).unwrap()).unwrap()
        };
        let (values, contexts) = (read("values.json"), read("contexts.json"));
        assert!(
            values.len() >= 60 && contexts.len() >= 6,
            "{} {}",
            values.len(),
            contexts.len()
        );
        let shells = ["/bin/sh", "/bin/bash", "/bin/dash"].map(std::path::Path::new);
        for shell in shells.iter().filter(|shell| shell.exists()) {
            for context in &contexts {
                let script = script(context["command"].as_str().unwrap()).unwrap();
                for value in &values {
                    let (value, folder) = (value.as_str().unwrap(), tempfile::tempdir().unwrap());
                    #[expect(clippy::disallowed_methods, reason = "the shell that is tested")]
                    let run = Command::new(shell)
                        .args(["-c", &script.text, "sh"])
                        .args(script.parameters.iter().map(|_| value))
                        .current_dir(&folder)
                        .output()
                        .unwrap();
                    let expected = context["prints"].as_str().unwrap().replace("VALUE", value);
                    assert_eq!(
                        String::from_utf8_lossy(&run.stdout),
                        expected,
                        "{} {context} {value:?}: {run:?}",
                        shell.display()
                    );
                    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "{context} {value:?}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn the_program_sees_the_values_and_nothing_else(a in hostile(), b in hostile(), c in hostile()) {
            let text = "printf '[%s]' {{ a }} x{{ b }}y 'p {{ c }} q' \"r {{ a }} s\" --f={{ b }}; V={{ c }} && printf '<%s>' \"$V\"";
            let expected = format!("[{a}][x{b}y][p {c} q][r {a} s][--f={b}]<{c}>");
            let values = [&a, &b, &c, &a, &b, &c].map(Clone::clone);
            prop_assert_eq!(words(text, &values), expected.into_bytes());
            prop_assert!(!std::path::Path::new("/tmp/weft-was-here").exists());
        }
    }
}
