//! The files of a bundle ⇄ one archive: a tar file, compressed by gzip.
//!
//! [`pack`] gives the same bytes for the same files. [`unpack`] takes archives of anybody: it works in memory within fixed
//! bounds, writes nothing, and lets no file through but regular ones under names that mean the same everywhere. What one program
//! would read otherwise than another is refused: records that change a size, two names for one file, something behind the end.

use std::collections::BTreeMap;
use std::io::{self, Read};

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use flate2::{Compression, GzBuilder};
use icu_normalizer::ComposingNormalizerBorrowed;
use tar::EntryType;

use super::bundle::{Files, MAX_BYTES, MAX_FILES, NO_LINKS};
use super::leave_out::{self, LeaveOut};
use crate::error::Finding;

/// Most bytes of an archive.
pub const MAX_ARCHIVE_BYTES: u64 = 32 << 20;
/// Most entries in an archive: files, folders, and what is left out.
pub const MAX_ENTRIES: usize = 4 * MAX_FILES;
/// Most bytes of a path.
pub const MAX_PATH_BYTES: usize = 512;
/// Most bytes of a part of a path, as file systems have it.
pub const MAX_NAME_BYTES: usize = 255;
/// Most folders above a file.
pub const MAX_DEPTH: usize = 32;
/// How many times larger than the archive its content may be, once it is over [`RATIO_COUNTS_FROM`].
pub const MAX_RATIO: u64 = 200;
/// Below that many bytes the ratio does not count: a few empty templates compress as well as a bomb.
pub const RATIO_COUNTS_FROM: u64 = 4 << 20;

/// Most bytes that may come out of an archive: contents, and for each entry a header and what fills its last block, twice
/// where a long name has an entry of its own.
const MAX_UNPACKED: u64 = MAX_BYTES + MAX_ENTRIES as u64 * 4 * 512;
/// Most bytes of records that come before a file.
const MAX_RECORDS: u64 = 64 << 10;
/// Most findings that are told.
const MAX_FINDINGS: usize = 100;
const MODE: u32 = 0o644;
/// What the gzip header says of the system that wrote it: unknown.
const NO_SYSTEM: u8 = 255;

/// One archive of these files: the same bytes for the same files, wherever and whenever.
///
/// # Errors
/// When a path is too long for an archive.
pub fn pack(files: &Files) -> io::Result<Vec<u8>> {
    let gzip = GzBuilder::new()
        .mtime(0)
        .operating_system(NO_SYSTEM)
        .write(Vec::new(), Compression::default());
    let mut archive = tar::Builder::new(gzip);
    for (path, content) in files.iter() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(MODE);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content.as_ref())?;
    }
    archive.into_inner()?.finish()
}

/// Everything that is wrong with the files of a bundle that is about to be published: names that not every file system can
/// keep apart, and private keys.
#[must_use]
pub fn faults(files: &Files) -> Vec<Finding> {
    let mut found = Findings::default();
    if files.is_empty() {
        found.add("", "empty", "there is no file in it");
    }
    if files.len() > MAX_FILES {
        found.add("", "too_many_files", &format!("it has more than {MAX_FILES} files"));
    }
    if files.bytes() > MAX_BYTES {
        found.add("", "too_large", &format!("its files have more than {MAX_BYTES} bytes"));
    }
    // Each path and each folder above it, as a file system sees it that tells neither cases nor spellings apart.
    let mut seen: BTreeMap<String, (&str, bool)> = BTreeMap::new();
    for (path, content) in files.iter() {
        if let Err((code, message)) = fault_of_path(path) {
            found.add(path, code, message);
            continue;
        }
        let folders = path.match_indices('/').map(|(end, _)| (&path[..end], true));
        for (name, is_folder) in folders.chain([(path, false)]) {
            let folded = folded(name);
            match seen.get(&folded) {
                None => {
                    seen.insert(folded, (name, is_folder));
                }
                Some((other, _)) if *other != name => {
                    let message = format!(
                        "`{name}` and `{other}` are one name where case or the spelling of letters doesn't count"
                    );
                    found.add(path, "case_collision", &message);
                    break;
                }
                Some((_, other)) if *other != is_folder || !is_folder => {
                    found.add(path, "file_and_folder", &format!("`{name}` is a file and a folder"));
                    break;
                }
                Some(_) => {}
            }
        }
        if has_private_key(content) {
            found.add_with_hint(
                path,
                "private_key",
                "it holds a private key",
                "keep it as a secret (`weft secrets set`), and take it out or name it in `.weftignore`",
            );
        }
    }
    found.list
}

/// Reads an archive of anybody's. Folders, and files that are no part of a bundle by their names or by the archive's own
/// `.weftignore`, are passed over.
///
/// # Errors
/// Everything that is wrong with it.
pub fn unpack(archive: &[u8]) -> Result<Files, Vec<Finding>> {
    let mut found = Findings::default();
    if archive.len() as u64 > MAX_ARCHIVE_BYTES {
        found.add(
            "",
            "too_large",
            &format!("the archive has more than {MAX_ARCHIVE_BYTES} bytes"),
        );
        return Err(found.list);
    }
    let limit = MAX_UNPACKED.min(RATIO_COUNTS_FROM.max(archive.len() as u64 * MAX_RATIO));
    let mut unzipped = Bounded {
        inner: GzDecoder::new(archive),
        left: limit,
        is_over: false,
    };
    let read = read_entries(&mut unzipped, &mut found);
    if unzipped.is_over {
        let message = format!("more than {limit} bytes come out of {} bytes", archive.len());
        found.add_with_hint(
            "",
            "bomb",
            &message,
            &format!("a bundle has at most {MAX_BYTES} bytes, and at most {MAX_RATIO} times as many as its archive"),
        );
        return Err(found.list);
    }
    let Contents {
        files: entries,
        patterns,
        links,
        is_at_its_end,
    } = match read {
        Ok(read) => read,
        Err(error) => {
            found.add("", "not_an_archive", &format!("it is no tar.gz archive: {error}"));
            return Err(found.list);
        }
    };
    // To its end, where gzip has its checksum; what tar has behind its own is zeros.
    let mut rest = Zeros { is_zero: true };
    if let Err(error) = io::copy(&mut unzipped, &mut rest) {
        let code = if unzipped.is_over { "bomb" } else { "not_an_archive" };
        found.add("", code, &format!("it can't be read to its end: {error}"));
    } else if !unzipped.inner.get_ref().is_empty() || (is_at_its_end && !rest.is_zero) {
        found.add_with_hint(
            "",
            "more_after_the_end",
            "there is something behind the end of the archive",
            "pack it anew: archives that are joined, or appended to, are read by some programs as a whole and by others in part",
        );
    }
    let rule = match LeaveOut::new(&patterns) {
        Ok(rule) => rule,
        Err(error) => {
            found.add(leave_out::FILE, "bad_pattern", &error.to_string());
            return Err(found.list);
        }
    };
    let files = Files::new(entries.into_iter().filter(|(path, _)| !rule.covers_file(path)));
    for (path, what) in links.iter().filter(|(path, _)| !rule.covers_file(path)) {
        found.add_with_hint(path, what.code(), what.message(), NO_LINKS);
    }
    let mut more = faults(&files);
    if !found.list.is_empty() {
        // It would not be, without what was refused.
        more.retain(|finding| finding.code != "empty");
    }
    found.append(more);
    if found.list.is_empty() {
        Ok(files)
    } else {
        Err(found.list)
    }
}

/// What is neither a file nor a folder.
#[derive(Debug, Clone, Copy)]
enum Other {
    Link,
    Device,
}

impl Other {
    const fn code(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Device => "device",
        }
    }

    const fn message(self) -> &'static str {
        match self {
            Self::Link => "links are not allowed in a bundle",
            Self::Device => "devices and pipes are not allowed in a bundle",
        }
    }
}

/// What was read of an archive.
#[derive(Default)]
struct Contents {
    files: Vec<(String, Bytes)>,
    /// The text of its `.weftignore`.
    patterns: String,
    links: Vec<(String, Other)>,
    /// Whether all entries were looked at.
    is_at_its_end: bool,
}

/// What entries before a file say of it.
#[derive(Default)]
struct Ahead {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    has_long_name: bool,
    has_long_link: bool,
    has_records: bool,
}

/// The regular files of an archive. What is wrong with an entry is a finding.
fn read_entries(unzipped: &mut Bounded<GzDecoder<&[u8]>>, found: &mut Findings) -> io::Result<Contents> {
    let mut archive = tar::Archive::new(unzipped);
    let (mut files, mut read) = (BTreeMap::new(), Contents::default());
    let mut bytes = 0u64;
    let mut ahead = Ahead::default();
    let strange = |found: &mut Findings, path: &str, message: &str| {
        let hint =
            "pack it anew with `weft publish`, `git archive` or `tar`, without options that change names or sizes";
        found.add_with_hint(path, "strange_record", message, hint);
    };
    // Raw, since records that say something of the next entry are to be looked at here.
    for (count, entry) in archive.entries()?.raw(true).enumerate() {
        let mut entry = entry?;
        if count >= MAX_ENTRIES {
            found.add(
                "",
                "too_many_entries",
                &format!("it has more than {MAX_ENTRIES} entries"),
            );
            return Ok(read);
        }
        let kind = entry.header().entry_type();
        if matches!(
            kind,
            EntryType::XGlobalHeader | EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink
        ) {
            let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if entry.size() > MAX_RECORDS {
                strange(found, &shown, "its records are too long");
                return Ok(read);
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            if let Err(message) = ahead.take(kind, content) {
                strange(found, &shown, message);
            }
            continue;
        }
        let ahead = std::mem::take(&mut ahead);
        let raw = ahead.name.unwrap_or_else(|| entry.path_bytes().into_owned());
        let Ok(path) = std::str::from_utf8(&raw) else {
            found.add(&String::from_utf8_lossy(&raw), "not_utf8", "its name is no UTF-8");
            continue;
        };
        let size = entry.size();
        if ahead.size.is_some_and(|said| said != size) {
            strange(found, path, "its size is one in its header and another in its records");
            return Ok(read);
        }
        let is_folder = match kind {
            EntryType::Directory => true,
            EntryType::Regular | EntryType::Continuous | EntryType::Symlink | EntryType::Link => false,
            EntryType::Char | EntryType::Block | EntryType::Fifo => false,
            _ => {
                found.add(path, "unknown_entry", "it is neither a file nor a folder");
                continue;
            }
        };
        let trimmed = path.strip_prefix("./").unwrap_or(path);
        let trimmed = if is_folder {
            trimmed.strip_suffix('/').unwrap_or(trimmed)
        } else {
            trimmed
        };
        if is_folder && matches!(trimmed, "" | ".") {
            continue;
        }
        if let Err((code, message)) = fault_of_path(trimmed) {
            found.add(path, code, message);
            continue;
        }
        match kind {
            EntryType::Directory => continue,
            EntryType::Symlink | EntryType::Link => {
                read.links.push((trimmed.to_owned(), Other::Link));
                continue;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                read.links.push((trimmed.to_owned(), Other::Device));
                continue;
            }
            _ => {}
        }
        bytes = bytes.saturating_add(size);
        if bytes > MAX_BYTES {
            found.add("", "too_large", &format!("its files have more than {MAX_BYTES} bytes"));
            return Ok(read);
        }
        let trimmed = trimmed.to_owned();
        let mut content = Vec::new();
        (&mut entry).take(size).read_to_end(&mut content)?;
        if content.len() as u64 != size {
            found.add(&trimmed, "cut_off", "it ends too early");
            continue;
        }
        if trimmed == leave_out::FILE {
            match String::from_utf8(content) {
                Ok(text) if text.len() as u64 <= leave_out::MAX_BYTES => read.patterns = text,
                _ => found.add(&trimmed, "bad_pattern", "it is no text, or too large"),
            }
        } else if files.insert(trimmed.clone(), Bytes::from(content)).is_some() {
            found.add(&trimmed, "twice", "it is in the archive twice");
        }
    }
    if ahead.has_records || ahead.has_long_name || ahead.has_long_link {
        strange(found, "", "it ends with records of a file that does not come");
    }
    read.files = files.into_iter().collect();
    read.is_at_its_end = true;
    Ok(read)
}

impl Ahead {
    /// Takes what an entry says of the file that comes next.
    fn take(&mut self, kind: EntryType, mut content: Vec<u8>) -> Result<(), &'static str> {
        const TWICE: &str = "it has two names, or records twice";
        match kind {
            EntryType::GNULongName => {
                if content.last() == Some(&0) {
                    content.pop();
                }
                if std::mem::replace(&mut self.has_long_name, true) || self.name.replace(content).is_some() {
                    return Err(TWICE);
                }
            }
            // Links are refused wherever they lead.
            EntryType::GNULongLink => {
                if std::mem::replace(&mut self.has_long_link, true) {
                    return Err(TWICE);
                }
            }
            _ => {
                let is_global = kind == EntryType::XGlobalHeader;
                if !is_global && std::mem::replace(&mut self.has_records, true) {
                    return Err(TWICE);
                }
                for (key, value) in records(&content).ok_or("its records can't be read")? {
                    self.record(key, value, is_global)?;
                }
            }
        }
        Ok(())
    }

    /// One record. What says nothing of names and sizes is passed over.
    fn record(&mut self, key: &[u8], value: &[u8], is_global: bool) -> Result<(), &'static str> {
        let is_of_a_file =
            matches!(key, b"path" | b"size" | b"linkpath" | b"hdrcharset") || key.starts_with(b"GNU.sparse.");
        if !is_of_a_file {
            return Ok(());
        }
        if is_global {
            return Err("a record for all files says something of their names or sizes");
        }
        match key {
            b"path" if self.name.is_none() => self.name = Some(value.to_owned()),
            b"size" if self.size.is_none() => {
                let size = std::str::from_utf8(value).ok();
                let size = size.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                let size = size.and_then(|text| text.parse().ok());
                self.size = Some(size.ok_or("a record says a size that is no number")?);
            }
            b"path" | b"size" => return Err("it has two names, or two sizes"),
            b"linkpath" => {}
            _ => return Err("a record says that it is sparse, or how its name is to be read"),
        }
        Ok(())
    }
}

/// The records of a pax header: each has its length in front, with which the next one begins.
fn records(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let (mut rest, mut found) = (bytes, Vec::new());
    while !rest.is_empty() {
        let space = rest.iter().take(20).position(|byte| *byte == b' ')?;
        let length = std::str::from_utf8(&rest[..space]).ok()?;
        if !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let length: usize = length.parse().ok()?;
        let (record, after) = rest.split_at_checked(length)?;
        let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        found.push((&record[..equals], &record[equals + 1..]));
        rest = after;
    }
    Some(found)
}

/// A name as a file system sees it that tells neither cases nor spellings of letters apart: `ß` and `SS` are one, and so are a
/// letter with its accent, and a letter with an accent after it.
fn folded(name: &str) -> String {
    let normal = ComposingNormalizerBorrowed::new_nfc();
    let name = normal.normalize(name).to_lowercase().to_uppercase().to_lowercase();
    normal.normalize(&name).into_owned()
}

/// What keeps a path out of bundles.
fn fault_of_path(path: &str) -> Result<(), (&'static str, &'static str)> {
    if path.is_empty() || path.len() > MAX_PATH_BYTES {
        return Err(("path_too_long", "its path is empty or too long"));
    }
    if path.starts_with('/') {
        return Err(("absolute", "its path is absolute"));
    }
    if path.chars().any(|c| c == '\\' || c == ':' || c.is_control()) {
        return Err((
            "bad_character",
            "its path has a backslash, a colon or a control character",
        ));
    }
    let mut depth = 0;
    for name in path.split('/') {
        depth += 1;
        if matches!(name, "" | "." | "..") {
            return Err(("traversal", "its path has an empty part, `.` or `..`"));
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(("path_too_long", "a part of its path is too long"));
        }
        if name.ends_with(['.', ' ']) {
            return Err(("bad_character", "a part of its path ends with a dot or a space"));
        }
    }
    if depth > MAX_DEPTH + 1 {
        return Err(("too_deep", "it lies in too many folders"));
    }
    Ok(())
}

/// Whether a text has the first line of a private key in PEM, whatever its encoding.
fn has_private_key(content: &[u8]) -> bool {
    if has_pem(content) {
        return true;
    }
    // UTF-16 and UTF-32 have zeros between the characters of it.
    let has_zeros = memchr::memchr(0, content).is_some();
    has_zeros && {
        let without: Vec<u8> = content.iter().copied().filter(|byte| *byte != 0).collect();
        has_pem(&without)
    }
}

fn has_pem(content: &[u8]) -> bool {
    memchr::memmem::find_iter(content, b"-----BEGIN ").any(|at| {
        let line = &content[at..content.len().min(at + 80)];
        let line = line
            .split(|byte| matches!(byte, b'\n' | b'\r'))
            .next()
            .unwrap_or_default();
        ["PRIVATE KEY-----", "PRIVATE KEY BLOCK-----"]
            .iter()
            .any(|end| memchr::memmem::find(line, end.as_bytes()).is_some())
    })
}

/// A writer that keeps nothing but whether all of it was zeros.
struct Zeros {
    is_zero: bool,
}

impl io::Write for Zeros {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_zero &= bytes.iter().all(|byte| *byte == 0);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader that ends with an error where more comes than was expected.
struct Bounded<R> {
    inner: R,
    left: u64,
    is_over: bool,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => {
                self.left = left;
                Ok(read)
            }
            None => {
                self.is_over = true;
                Err(io::Error::other("more comes out of it than a bundle may have"))
            }
        }
    }
}

/// What is wrong, up to a bound.
#[derive(Default)]
struct Findings {
    list: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, path: &str, code: &str, message: &str) {
        if self.list.len() < MAX_FINDINGS {
            let shown: String = path.chars().take(200).flat_map(char::escape_debug).collect();
            self.list.push(Finding::new(shown, code, message));
        }
    }

    fn add_with_hint(&mut self, path: &str, code: &str, message: &str, hint: &str) {
        self.add(path, code, message);
        if let Some(last) = self.list.last_mut().filter(|last| last.code == code) {
            last.hint = Some(hint.to_owned());
        }
    }

    fn append(&mut self, more: Vec<Finding>) {
        let room = MAX_FINDINGS - self.list.len();
        self.list.extend(more.into_iter().take(room));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        Files::new(
            list.iter()
                .map(|(path, text)| ((*path).to_owned(), Bytes::from((*text).to_owned()))),
        )
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    }

    /// An archive with these entries, whatever their names.
    fn raw(entries: &[(EntryType, &[u8], &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (kind, name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
            header.set_entry_type(*kind);
            header.set_mode(0o4777);
            header.set_size(content.len() as u64);
            header.set_cksum();
            archive.append(&header, *content).unwrap();
        }
        gzip(&archive.into_inner().unwrap())
    }

    fn codes(archive: &[u8]) -> Vec<String> {
        let found = unpack(archive).unwrap_err();
        found.into_iter().map(|finding| finding.code).collect()
    }

    const FILE: EntryType = EntryType::Regular;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn packing_is_deterministic_and_loses_nothing(
            tree in proptest::collection::btree_map("[a-z]{1,8}(/[a-z]{1,60}){0,4}\\.py", proptest::collection::vec(any::<u8>(), 0..2000), 1..20),
            shuffle in any::<u64>(),
        ) {
            let mut list: Vec<_> = tree.into_iter().map(|(path, content)| (path, Bytes::from(content))).collect();
            let one = Files::new(list.clone());
            prop_assume!(faults(&one).is_empty());
            let middle = usize::try_from(shuffle % list.len() as u64).unwrap();
            list.rotate_left(middle);
            list.reverse();
            let other = Files::new(list);
            prop_assert_eq!(one.digest(), other.digest());
            let packed = pack(&one).unwrap();
            prop_assert_eq!(&packed, &pack(&other).unwrap());
            let back = unpack(&packed).unwrap();
            prop_assert_eq!(back.iter().filter(|(path, _)| path.contains("tests/")).count(), 0);
            if one.iter().all(|(path, _)| !LeaveOut::new("").unwrap().covers_file(path)) {
                prop_assert_eq!(back, one);
            }
        }

        #[test]
        fn no_bytes_are_too_strange_to_be_refused(noise in proptest::collection::vec(any::<u8>(), 0..3000), zipped in any::<bool>()) {
            let archive = if zipped { gzip(&noise) } else { noise };
            drop(unpack(&archive));
        }
    }

    #[test]
    fn a_cut_or_changed_archive_is_none() {
        let packed = pack(&files(&[("workflows/a.py", "x = 1\n"), ("workflows/b.py", "y = 2\n")])).unwrap();
        assert!(unpack(&packed).is_ok());
        for end in 0..packed.len() {
            assert!(unpack(&packed[..end]).is_err(), "cut at {end}");
        }
        let mut changed = 0;
        for at in 10..packed.len() {
            let mut bytes = packed.clone();
            bytes[at] ^= 0x10;
            changed += usize::from(unpack(&bytes).is_err());
        }
        // A flag of the compressor that changes nothing of what comes out may flip.
        assert!(changed >= packed.len() - 12, "{changed} of {}", packed.len() - 10);
        let mut more = packed.clone();
        more.extend(b"more");
        assert_eq!(codes(&more), ["more_after_the_end"]);
        let mut twice = packed.clone();
        twice.extend(&packed);
        assert_eq!(codes(&twice), ["more_after_the_end"]);
    }

    #[test]
    fn hostile_names_are_refused() {
        for (name, code) in [
            (&b"/etc/passwd"[..], "absolute"),
            (b"../up.py", "traversal"),
            (b"a/../../up.py", "traversal"),
            (b"a/./b.py", "traversal"),
            (b"a//b.py", "traversal"),
            (b"././a.py", "traversal"),
            (b"a.py/", "traversal"),
            (b"..", "traversal"),
            (b"./../up.py", "traversal"),
            (b"a\\b.py", "bad_character"),
            (b"c:evil.py", "bad_character"),
            (b"a\x01b.py", "bad_character"),
            (b"a\nb.py", "bad_character"),
            (b"a.py.", "bad_character"),
            (b"a /b.py", "bad_character"),
            (b"\xff\xfe.py", "not_utf8"),
        ] {
            let archive = raw(&[(FILE, name, b"x"), (FILE, b"workflows/good.py", b"x")]);
            assert_eq!(codes(&archive), [code], "{}", String::from_utf8_lossy(name));
        }
        let deep = format!("{}a.py", "d/".repeat(40));
        assert_eq!(codes(&raw(&[(FILE, deep.as_bytes(), b"x")])), ["too_deep"]);
    }

    #[test]
    fn links_devices_and_strange_entries_are_refused_all_at_once() {
        let archive = raw(&[
            (EntryType::Symlink, b"a.py", b""),
            (EntryType::Link, b"b.py", b""),
            (EntryType::Char, b"c", b""),
            (EntryType::Block, b"d", b""),
            (EntryType::Fifo, b"e", b""),
            (EntryType::new(b'V'), b"g", b""),
            (FILE, b"workflows/good.py", b"x"),
        ]);
        let mut found = codes(&archive);
        found.sort();
        assert_eq!(found, ["device", "device", "device", "link", "link", "unknown_entry"]);
    }

    #[test]
    fn a_sparse_file_is_no_way_to_be_large() {
        let archive = raw(&[(FILE, b"workflows/good.py", b"x"), (EntryType::GNUSparse, b"f", b"")]);
        assert!(["not_an_archive", "unknown_entry"].contains(&codes(&archive)[0].as_str()));
    }

    #[test]
    fn names_that_collide_are_refused() {
        let twice = raw(&[(FILE, b"a.py", b"1"), (FILE, b"./a.py", b"2")]);
        assert_eq!(codes(&twice), ["twice"]);
        for (one, other, code) in [
            ("a.py", "A.py", "case_collision"),
            ("Nodes/a.py", "nodes/b.py", "case_collision"),
            ("\u{c4}.py", "\u{e4}.py", "case_collision"),
            ("a.py", "a.py/b.py", "file_and_folder"),
            // An accent of its own, and one that belongs to its letter; and letters whose capitals are the same.
            ("caf\u{e9}.py", "cafe\u{301}.py", "case_collision"),
            ("CAFE\u{301}.py", "caf\u{e9}.py", "case_collision"),
            ("stra\u{df}e.py", "STRASSE.py", "case_collision"),
            ("stra\u{1e9e}e.py", "strasse.py", "case_collision"),
            ("\u{212a}.py", "k.py", "case_collision"),
            ("e\u{301}/a.py", "\u{c9}/b.py", "case_collision"),
        ] {
            let found = faults(&files(&[(one, "1"), (other, "2")]));
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].code, code);
        }
    }

    #[test]
    fn bombs_are_refused_before_they_go_off() {
        let zeros = vec![0u8; 70 << 20];
        let large = raw(&[(FILE, b"zeros.bin", &zeros)]);
        assert!(large.len() < 1 << 20);
        let found = codes(&large);
        assert!(found == ["bomb"] || found[0] == "too_large", "{found:?}");
        // Below the bound of bytes, but far above that of the ratio.
        let dense = raw(&[(FILE, b"zeros.bin", &zeros[..40 << 20])]);
        assert_eq!(codes(&dense), ["bomb"]);
        // A header that promises more than there is.
        let mut header = tar::Header::new_gnu();
        header.set_path("a.py").unwrap();
        header.set_entry_type(FILE);
        header.set_size(1 << 40);
        header.set_cksum();
        assert_eq!(codes(&gzip(header.as_bytes())), ["too_large"]);
        let many: Vec<_> = (0..MAX_ENTRIES + 2).map(|n| format!("f{n}")).collect();
        let many: Vec<_> = many
            .iter()
            .map(|name| (EntryType::Directory, name.as_bytes(), &b""[..]))
            .collect();
        let found = codes(&raw(&many));
        assert!(
            found.contains(&"too_many_entries".to_owned()) || found == ["bomb"],
            "{found:?}"
        );
    }

    #[test]
    fn what_is_no_part_of_a_bundle_is_passed_over() {
        let archive = raw(&[
            (
                EntryType::XGlobalHeader,
                b"pax_global_header",
                b"52 comment=0123456789012345678901234567890123456789\n",
            ),
            (EntryType::Directory, b"./", b""),
            (EntryType::Directory, b"./workflows/", b""),
            (FILE, b"./workflows/a.py", b"x"),
            (FILE, b"./.weftignore", b"*.csv\n"),
            (FILE, b"./big.csv", b"1,2"),
            (FILE, b"./.env", b"KEY=1"),
            (FILE, b"./local.settings.json", b"{}"),
            (FILE, b"./tests/test_a.py", b"x"),
        ]);
        let names: Vec<_> = unpack(&archive)
            .unwrap()
            .iter()
            .map(|(path, _)| path.to_owned())
            .collect();
        assert_eq!(names, ["workflows/a.py"]);
    }

    /// A record of a pax header.
    fn record(key: &str, value: &str) -> Vec<u8> {
        let rest = format!(" {key}={value}\n");
        let length = (rest.len()..).find(|length| length.to_string().len() + rest.len() == *length);
        format!("{}{rest}", length.unwrap()).into_bytes()
    }

    #[test]
    fn records_that_programs_read_otherwise_are_refused() {
        const RECORDS: EntryType = EntryType::XHeader;
        let file = (FILE, &b"workflows/a.py"[..], &b"x"[..]);
        let path = record("path", "workflows/b.py");
        let strange: Vec<(&str, Vec<Vec<u8>>)> = vec![
            ("another size", vec![record("size", "0")]),
            ("no size", vec![record("size", "-1")]),
            ("two sizes", vec![[record("size", "1"), record("size", "1")].concat()]),
            ("two names", vec![[path.clone(), record("path", "c.py")].concat()]),
            ("two headers", vec![path.clone(), path.clone()]),
            ("sparse", vec![record("GNU.sparse.name", "c.py")]),
            ("another encoding", vec![record("hdrcharset", "BINARY")]),
            ("a wrong length", vec![b"99 path=c.py\n".to_vec()]),
            ("no length", vec![b"path=c.py\n".to_vec()]),
            (
                "a record behind an empty line",
                vec![[b"\n".to_vec(), path.clone()].concat()],
            ),
        ];
        for (what, headers) in &strange {
            let mut entries: Vec<_> = headers
                .iter()
                .map(|header| (RECORDS, &b"x"[..], header.as_slice()))
                .collect();
            entries.push(file);
            assert_eq!(codes(&raw(&entries)), ["strange_record"], "{what}");
        }
        let global = record("path", "workflows/c.py");
        assert_eq!(
            codes(&raw(&[(EntryType::XGlobalHeader, b"g", &global), file])),
            ["strange_record"]
        );
        let both = raw(&[
            (EntryType::GNULongName, b"l", b"workflows/c.py\0"),
            (RECORDS, b"x", &path),
            file,
        ]);
        assert_eq!(codes(&both), ["strange_record"]);
        assert_eq!(codes(&raw(&[file, (RECORDS, b"x", &path)])), ["strange_record"]);
        // Names in records are held to what names are held to.
        for (name, code) in [
            ("/etc/passwd", "absolute"),
            ("../up.py", "traversal"),
            ("a\nb.py", "bad_character"),
            ("a\0b.py", "bad_character"),
            ("", "path_too_long"),
        ] {
            let header = record("path", name);
            assert_eq!(codes(&raw(&[(RECORDS, b"x", &header), file])), [code], "{name:?}");
        }
        // And what tar and git write goes through: long names either way, times with fractions, the commit.
        let long = format!("workflows/{}.py", "n".repeat(180));
        let times = [record("mtime", "1.5"), record("path", &long), record("size", "1")].concat();
        let terminated = [long.as_bytes(), b"\0"].concat();
        for archive in [
            raw(&[(RECORDS, b"x", &times), file]),
            raw(&[(EntryType::GNULongName, b"l", &terminated), file]),
            raw(&[
                (EntryType::XGlobalHeader, b"g", &record("comment", "0123")),
                (RECORDS, b"x", &times),
                file,
            ]),
        ] {
            let files = unpack(&archive).unwrap();
            assert_eq!(files.iter().map(|(path, _)| path).collect::<Vec<_>>(), [long.as_str()]);
        }
    }

    #[test]
    fn nothing_may_be_behind_the_end() {
        let whole = |entries: &[(EntryType, &[u8], &[u8])]| {
            let mut bytes = Vec::new();
            GzDecoder::new(&raw(entries)[..]).read_to_end(&mut bytes).unwrap();
            bytes
        };
        let one = whole(&[(FILE, b"workflows/a.py", b"x")]);
        let two = whole(&[(FILE, b"workflows/evil.py", b"x")]);
        assert_eq!(codes(&gzip(&[one.clone(), two].concat())), ["more_after_the_end"]);
        assert_eq!(
            codes(&gzip(&[one.clone(), b"x".to_vec()].concat())),
            ["more_after_the_end"]
        );
        let padded = gzip(&[one, vec![0; 20 << 10]].concat());
        assert_eq!(unpack(&padded).unwrap().len(), 1);
    }

    #[test]
    fn links_that_are_no_part_of_a_bundle_are_passed_over() {
        let archive = raw(&[
            (FILE, b".weftignore", b"fixtures/\n"),
            (FILE, b"workflows/a.py", b"x"),
            (EntryType::Symlink, b"tests/data", b""),
            (EntryType::Symlink, b"fixtures/data", b""),
            (EntryType::Symlink, b".venv", b""),
        ]);
        assert_eq!(unpack(&archive).unwrap().len(), 1);
    }

    #[test]
    fn private_keys_and_empty_bundles_are_refused() {
        let key = "x\n-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n";
        let found = faults(&files(&[
            ("ca.pem", "-----BEGIN CERTIFICATE-----\n"),
            ("deploy.pem", key),
        ]));
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].pointer.as_str(), found[0].code.as_str()),
            ("deploy.pem", "private_key")
        );
        assert_eq!(faults(&Files::default())[0].code, "empty");
        // As an editor may have saved it.
        let text = format!("\u{feff}{key}");
        let wide = |encode: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(encode).collect::<Vec<u8>>();
        let longer: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
        let block = b"-----BEGIN PGP PRIVATE KEY BLOCK-----\r\n".to_vec();
        for content in [wide(u16::to_le_bytes), wide(u16::to_be_bytes), longer, block] {
            let found = faults(&Files::new([("notes.txt".to_owned(), Bytes::from(content))]));
            assert_eq!(
                found.iter().map(|one| one.code.as_str()).collect::<Vec<_>>(),
                ["private_key"]
            );
        }
        let certificate: Vec<u8> = "-----BEGIN CERTIFICATE-----\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert!(faults(&Files::new([("ca.pem".to_owned(), Bytes::from(certificate))])).is_empty());
    }
}
