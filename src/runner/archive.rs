//! The files of a bundle ⇄ one archive: a tar file, compressed by gzip.
//!
//! [`pack`] gives the same bytes for the same files. [`unpack`] takes archives of anybody: it works in memory within fixed
//! bounds, writes nothing, and lets no file through but regular ones under names that mean the same everywhere.

use std::collections::BTreeMap;
use std::io::{self, Read};

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use flate2::{Compression, GzBuilder};
use tar::EntryType;

use super::bundle::{Files, MAX_BYTES, MAX_FILES};
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
    // Each path and each folder above it, as a file system sees it that does not tell cases apart.
    let mut seen: BTreeMap<String, (&str, bool)> = BTreeMap::new();
    for (path, content) in files.iter() {
        if let Err((code, message)) = fault_of_path(path) {
            found.add(path, code, message);
            continue;
        }
        let folders = path.match_indices('/').map(|(end, _)| (&path[..end], true));
        for (name, is_folder) in folders.chain([(path, false)]) {
            let folded = name.to_lowercase();
            match seen.get(&folded) {
                None => {
                    seen.insert(folded, (name, is_folder));
                }
                Some((other, _)) if *other != name => {
                    let message = format!("`{name}` and `{other}` differ only in case");
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
    let (entries, patterns) = match read {
        Ok(read) => read,
        Err(error) => {
            found.add("", "not_an_archive", &format!("it is no tar.gz archive: {error}"));
            return Err(found.list);
        }
    };
    // To its end, where gzip has its checksum.
    if let Err(error) = io::copy(&mut unzipped, &mut io::sink()) {
        let code = if unzipped.is_over { "bomb" } else { "not_an_archive" };
        found.add("", code, &format!("it can't be read to its end: {error}"));
    } else if !unzipped.inner.get_ref().is_empty() {
        found.add(
            "",
            "more_after_the_end",
            "there is something behind the end of the archive",
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

type Entries = (Vec<(String, Bytes)>, String);

/// The regular files of an archive, and the text of its `.weftignore`. What is wrong with an entry is a finding.
fn read_entries(unzipped: &mut Bounded<GzDecoder<&[u8]>>, found: &mut Findings) -> io::Result<Entries> {
    let mut archive = tar::Archive::new(unzipped);
    let (mut files, mut patterns) = (BTreeMap::new(), String::new());
    let mut bytes = 0u64;
    for (count, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        if count >= MAX_ENTRIES {
            found.add(
                "",
                "too_many_entries",
                &format!("it has more than {MAX_ENTRIES} entries"),
            );
            break;
        }
        let raw = entry.path_bytes().into_owned();
        let kind = entry.header().entry_type();
        let Ok(path) = std::str::from_utf8(&raw) else {
            found.add(&String::from_utf8_lossy(&raw), "not_utf8", "its name is no UTF-8");
            continue;
        };
        let (path, is_folder) = match kind {
            // What `git archive` says of its commit.
            EntryType::XGlobalHeader => continue,
            EntryType::Directory => (path, true),
            EntryType::Regular | EntryType::Continuous => (path, false),
            EntryType::Symlink | EntryType::Link => {
                found.add(path, "link", "links are not allowed in a bundle");
                continue;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                found.add(path, "device", "devices and pipes are not allowed in a bundle");
                continue;
            }
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
        if is_folder {
            continue;
        }
        let size = entry.size();
        bytes = bytes.saturating_add(size);
        if bytes > MAX_BYTES {
            found.add("", "too_large", &format!("its files have more than {MAX_BYTES} bytes"));
            break;
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
                Ok(text) if text.len() as u64 <= leave_out::MAX_BYTES => patterns = text,
                _ => found.add(&trimmed, "bad_pattern", "it is no text, or too large"),
            }
        } else if files.insert(trimmed.clone(), Bytes::from(content)).is_some() {
            found.add(&trimmed, "twice", "it is in the archive twice");
        }
    }
    Ok((files.into_iter().collect(), patterns))
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

/// Whether a text has the first line of a private key in PEM.
fn has_private_key(content: &[u8]) -> bool {
    memchr::memmem::find_iter(content, b"-----BEGIN ").any(|at| {
        let line = &content[at..content.len().min(at + 80)];
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        memchr::memmem::find(line, b"PRIVATE KEY-----").is_some()
    })
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
        assert_eq!(
            codes(&archive),
            ["link", "link", "device", "device", "device", "unknown_entry"]
        );
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
    }
}
