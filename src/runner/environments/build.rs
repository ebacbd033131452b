//! Makes one environment, from lines of requirements to a folder that never changes again. Blocks for as long as it takes.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::folder::{Failure, Folder, Lock, Manifest, Package, seal};
use super::requirements::Requirements;
use super::resolver::{CONSTRAINTS, Index, Mask, Places, REQUIREMENTS, Resolver, compile_command};
use crate::clock::Clock;
use crate::runner::python::Python;

/// How long resolving and installing may take.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// How many lines explain a failure.
const LAST_LINES: usize = 20;
const LINE_BYTES: usize = 64 << 10;
/// How often a build looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// Everything that a build needs.
#[derive(Debug)]
pub struct Order<'a> {
    /// Where to.
    pub folder: &'a Folder,
    /// The right to write there.
    pub lock: &'a Lock,
    /// What.
    pub requirements: &'a Requirements,
    /// What for.
    pub python: &'a Python,
    /// Where from.
    pub index: &'a Index,
    /// Downloads that are kept.
    pub cache: PathBuf,
    /// Now.
    pub clock: &'a dyn Clock,
    /// Ends it early.
    pub stop: &'a CancellationToken,
}

/// Makes it. Every line of the resolver goes to `say`, and to the folder's log.
///
/// # Errors
/// Why there is none; it is noted in the folder as well, unless the build was stopped.
pub fn build(order: &Order<'_>, say: &mut dyn FnMut(&str)) -> Result<Manifest, Failure> {
    let started = Instant::now();
    let mut output = Output {
        log: None,
        mask: Mask::new(order.index),
        last: VecDeque::new(),
        say,
    };
    let made = make(order, started, &mut output);
    made.map_err(|message| {
        output.line(&format!("weft: {message}"));
        output.last.pop_back();
        // Callers are told of it, who are not to learn where things lie here.
        let places = [
            order.cache.parent().unwrap_or(&order.cache),
            order.python.path.parent().unwrap_or(&order.python.path),
        ];
        let without_places = |text: &str| {
            let mut text = text.to_owned();
            for place in places.iter().filter(|place| place.components().count() > 1) {
                text = text.replace(&*place.to_string_lossy(), "…");
            }
            text
        };
        let failure = Failure {
            message: without_places(&message),
            last_lines: output.last.iter().map(|line| without_places(line)).collect(),
            at: order.clock.now(),
            build_ms: millis(started),
        };
        if !order.stop.is_cancelled()
            && let Err(error) = order.folder.fail(order.lock, &failure)
        {
            tracing::warn!(environment = order.folder.digest(), %error, "why it failed can't be noted");
        }
        failure
    })
}

struct Output<'a> {
    log: Option<File>,
    mask: Mask,
    last: VecDeque<String>,
    say: &'a mut dyn FnMut(&str),
}

impl Output<'_> {
    fn line(&mut self, line: &str) {
        let line = self.mask.line(line.trim_end());
        if line.is_empty() {
            return;
        }
        if let Some(log) = &mut self.log {
            // A full disk is found out by the installation itself.
            drop(writeln!(log, "{line}"));
        }
        (self.say)(&line);
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

fn make(order: &Order<'_>, started: Instant, output: &mut Output<'_>) -> Result<Manifest, String> {
    let Order { folder, python, .. } = order;
    let file = |error: io::Error| format!("the environment's folder can't be written: {error}");
    output.log = Some(folder.begin(order.lock, order.clock.now()).map_err(file)?);
    let unfinished = folder.unfinished();
    let wanted = order.requirements;
    let places = Places {
        dir: unfinished.clone(),
        constrained: !wanted.constraints.is_empty(),
        lib: unfinished.join("lib"),
        home: unfinished.join("home"),
        cache: order.cache.clone(),
    };
    for dir in [&places.lib, &places.home, &places.cache] {
        std::fs::create_dir_all(dir).map_err(file)?;
    }
    let text = |lines: &mut dyn Iterator<Item = &String>| lines.map(|line| format!("{line}\n")).collect::<String>();
    std::fs::write(unfinished.join(REQUIREMENTS), text(&mut wanted.lines.iter())).map_err(file)?;
    std::fs::write(unfinished.join(CONSTRAINTS), text(&mut wanted.constraints.iter())).map_err(file)?;

    let resolver = Resolver::find(python, order.index);
    let version = version(&resolver, &places.home)?;
    output.line(&format!(
        "weft: {version} installs {} requirement(s) for Python {}",
        wanted.lines.len(),
        python.version
    ));
    let lock = order.lock.share().map_err(file)?;
    let status = run(
        resolver.install_command(python, order.index, &places, lock),
        order.stop,
        output,
    )?;
    if !status.success() {
        return Err(format!(
            "{} could not install the requirements ({status})",
            resolver.name()
        ));
    }
    output.line("weft: compiling");
    let compile = compile_command(python, &places.lib, &folder.lib(), &places.home);
    // Some packages carry files that are no Python of this version; importing one says so.
    run(compile, order.stop, output)?;
    let packages = packages(&places.lib).map_err(file)?;
    let bytes = seal(&places.lib).map_err(file)?;
    let manifest = Manifest {
        digest: folder.digest().to_owned(),
        requirements: wanted.lines.iter().cloned().collect(),
        packages,
        python: python.version.clone(),
        resolver: version,
        built_at: order.clock.now(),
        build_ms: millis(started),
        bytes,
    };
    folder.finish(order.lock, &places.lib, &manifest).map_err(file)?;
    output.line(&format!(
        "weft: {} package(s), {:.1} MB, {:.1} s",
        manifest.packages.len(),
        megabytes(bytes),
        started.elapsed().as_secs_f64()
    ));
    Ok(manifest)
}

/// As `pip 24.0`; an error when there is neither.
fn version(resolver: &Resolver, home: &Path) -> Result<String, String> {
    let output = resolver.version_command(home).output();
    let text = match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        _ => {
            return Err(
                "there is neither `uv` on the PATH nor a `pip` for this Python that works; install one of them (`pip \
                 install uv`, or `apt-get install python3-pip`)"
                    .to_owned(),
            );
        }
    };
    let words: Vec<_> = text.split_whitespace().take(2).collect();
    Ok(words.join(" "))
}

/// Runs a program to its end and passes on what it prints.
fn run(mut command: Command, stop: &CancellationToken, output: &mut Output<'_>) -> Result<ExitStatus, String> {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    let fail = |error: io::Error| format!("`{name}` can't be run: {error}");
    let (mut reader, writer) = io::pipe().map_err(fail)?;
    command
        .stdout(Stdio::from(writer.try_clone().map_err(fail)?))
        .stderr(Stdio::from(writer));
    let mut child = command.spawn().map_err(fail)?;
    // It holds the writing end, and no end of the output would be seen while it does.
    drop(command);
    let begun = Instant::now();
    let (mut line, mut chunk) = (Vec::new(), vec![0; 16 << 10]);
    let ended = loop {
        if stop.is_cancelled() {
            break Err("the build was stopped".to_owned());
        }
        if begun.elapsed() > PATIENCE {
            break Err(format!("it did not end within {} minutes", PATIENCE.as_secs() / 60));
        }
        if !readable(&reader).map_err(fail)? {
            continue;
        }
        match reader.read(&mut chunk).map_err(fail)? {
            0 => break Ok(()),
            length => {
                for byte in &chunk[..length] {
                    if matches!(byte, b'\n' | b'\r') || line.len() == LINE_BYTES {
                        output.line(&String::from_utf8_lossy(&line));
                        line.clear();
                    }
                    if !matches!(byte, b'\n' | b'\r') {
                        line.push(*byte);
                    }
                }
            }
        }
    };
    output.line(&String::from_utf8_lossy(&line));
    if let Err(why) = ended {
        if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // Not reaped yet, so the number can't mean anybody else.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        drop(child.wait());
        return Err(why);
    }
    child.wait().map_err(fail)
}

fn readable(reader: &io::PipeReader) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(reader, PollFlags::IN)];
    let wait = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(LOOK.subsec_nanos()),
    };
    match poll(&mut fds, Some(&wait)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What was installed, by the metadata that wheels bring along.
fn packages(lib: &Path) -> io::Result<Vec<Package>> {
    let mut packages = Vec::new();
    for entry in std::fs::read_dir(lib)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().ends_with(".dist-info") {
            continue;
        }
        let bytes = std::fs::read(entry.path().join("METADATA")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let field = |name: &str| {
            let headers = text.lines().take_while(|line| !line.is_empty());
            headers
                .filter_map(|line| line.split_once(':'))
                .find(|(field, _)| field.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim().to_owned())
        };
        if let (Some(name), Some(version)) = (field("Name"), field("Version")) {
            packages.push(Package { name, version });
        }
    }
    packages.sort();
    Ok(packages)
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
