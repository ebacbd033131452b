//! Finds secrets in text, in the forms that text takes on its way, and puts [`MASK`] in their place.
//!
//! One automaton looks for each value as it is, in hexadecimal, and in base64 at its three alignments. What stands in
//! escapes is looked at twice more: the surroundings of every `%` and every `\` are decoded (percent-encoding; the escapes of
//! JSON and of Python), and what results is searched by the same automaton and decoded once again. So it does not matter
//! which characters somebody chose to escape, nor whether one form was put into another.
//!
//! A value is masked whole and line by line, since logs are lines. Occurrences that overlap become one mask. What can't be
//! found: a value that was taken apart, reversed, compressed or encrypted, base64 that was broken into lines, and whatever
//! was said before the value was added.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, Anchored, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use crate::domain::Secret;

/// What stands in place of a secret.
pub const MASK: &str = "***";
/// Shorter values would be found everywhere; they are never masked, and so never accepted.
pub const MIN_BYTES: usize = 4;
/// Lines of a longer value that are shorter are not masked by themselves.
pub const MIN_LINE_BYTES: usize = 8;
/// Up to this many bytes of patterns the automaton is built for speed; above, for size.
const FAST_PATTERN_BYTES: usize = 64 * 1024;
/// Most bytes that one byte of a value becomes: each byte of `\u0041` as `%5C`.
const EXPANSION: usize = 18;
/// Longest escape of an escape.
const QUIET: usize = 36;
/// So many escapes are gone back for a place without one close before it.
const QUIET_TRIES: usize = 32;
/// How often what was decoded is decoded again.
const DEPTH: usize = 2;

/// The secrets of one attempt. Clones share what they know; what is added holds from then on.
#[derive(Clone, Default)]
pub struct Masker {
    known: Arc<RwLock<Known>>,
}

#[derive(Default)]
struct Known {
    values: Vec<Secret>,
    finder: Option<Arc<Finder>>,
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Masker").field("values", &known.values.len()).finish()
    }
}

impl Masker {
    /// Knows these values.
    #[must_use]
    pub fn of<'a>(values: impl IntoIterator<Item = &'a Secret>) -> Self {
        let masker = Self::default();
        {
            let mut known = masker.known.write().unwrap_or_else(PoisonError::into_inner);
            known.values = values.into_iter().cloned().collect();
            known.finder = Finder::new(&known.values).map(Arc::new);
        }
        masker
    }

    /// Masks this value too, from now on. One that is known, or too short, changes nothing.
    pub fn add(&self, value: &Secret) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if value.expose().len() < MIN_BYTES || known.values.iter().any(|other| other.same(value)) {
            return;
        }
        known.values.push(value.clone());
        known.finder = Finder::new(&known.values).map(Arc::new);
    }

    /// Whether there is nothing to mask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.finder().is_none()
    }

    fn finder(&self) -> Option<Arc<Finder>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.finder.clone()
    }

    /// A text without secrets.
    #[must_use]
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).unwrap_or_else(|error| {
                // An occurrence in base64 may begin between two bytes of a character.
                String::from_utf8_lossy(error.as_bytes()).into_owned()
            })),
        }
    }

    /// A text without secrets, in place.
    pub fn text_in(&self, text: &mut String) {
        if let Cow::Owned(masked) = self.text(text) {
            *text = masked;
        }
    }

    /// Bytes without secrets.
    #[must_use]
    pub fn bytes<'t>(&self, bytes: &'t [u8]) -> Cow<'t, [u8]> {
        let Some(finder) = self.finder() else {
            return Cow::Borrowed(bytes);
        };
        let found = finder.find(bytes);
        if found.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        for range in found {
            out.extend_from_slice(&bytes[at..range.start]);
            out.extend_from_slice(MASK.as_bytes());
            at = range.end;
        }
        out.extend_from_slice(&bytes[at..]);
        Cow::Owned(out)
    }

    /// JSON without secrets, in place: in texts, in names of members, and in numbers that are one.
    pub fn json(&self, value: &mut Value) {
        if !self.is_empty() {
            self.json_inside(value);
        }
    }

    fn json_inside(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.text_in(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.json_inside(item)),
            Value::Object(members) => {
                members.values_mut().for_each(|member| self.json_inside(member));
                if members.keys().any(|name| matches!(self.text(name), Cow::Owned(_))) {
                    let named = |(name, member): (String, Value)| (self.text(&name).into_owned(), member);
                    *members = std::mem::take(members).into_iter().map(named).collect::<Map<_, _>>();
                }
            }
            Value::Number(number) => {
                if let Cow::Owned(masked) = self.text(&number.to_string()) {
                    *value = Value::String(masked);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Masks what comes in pieces, with the secrets that are known now.
    #[must_use]
    pub fn stream(&self) -> Stream {
        Stream {
            finder: self.finder(),
            held: Vec::new(),
            masked: 0,
        }
    }
}

/// Masks what comes in pieces: the result does not depend on where it was cut.
pub struct Stream {
    finder: Option<Arc<Finder>>,
    held: Vec<u8>,
    /// So much of what is held belongs to an occurrence whose mask has been written.
    masked: usize,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("held", &self.held.len())
            .finish_non_exhaustive()
    }
}

impl Stream {
    /// Takes a piece, and gives what can be said of what came so far.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let Some(finder) = self.finder.clone() else {
            return out.extend_from_slice(piece);
        };
        self.held.extend_from_slice(piece);
        // Looking again and again at what is held would cost more than it gives.
        if self.held.len() >= 2 * finder.reach {
            self.release(&finder, self.held.len() - finder.reach, out);
        }
    }

    /// Gives the rest.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        if let Some(finder) = self.finder.clone() {
            self.release(&finder, self.held.len(), out);
        }
    }

    fn release(&mut self, finder: &Finder, until: usize, out: &mut Vec<u8>) {
        let whole = until == self.held.len();
        let (mut found, until) = finder.find_until(&self.held, until);
        if until == 0 && !whole {
            return;
        }
        if self.masked > 0 {
            found.push(0..self.masked);
            merge(&mut found);
        }
        let mut at = 0;
        let mut masked = 0;
        for range in found.iter().take_while(|range| range.start < until) {
            out.extend_from_slice(&self.held[at..range.start]);
            if range.start > 0 || self.masked == 0 {
                out.extend_from_slice(MASK.as_bytes());
            }
            at = range.end.min(until);
            masked = range.end.saturating_sub(until);
        }
        out.extend_from_slice(&self.held[at..until]);
        self.held.drain(..until);
        self.masked = masked;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.held.fill(0);
        std::hint::black_box(&self.held);
    }
}

struct Finder {
    patterns: AhoCorasick,
    kinds: Vec<Kind>,
    /// Longest pattern.
    longest: usize,
    /// An occurrence that begins here has ended so many bytes later, in whatever form.
    reach: usize,
}

/// What an occurrence of a pattern takes with it: the neighbours that carry some bits of the value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Exact,
    Base64 { before: bool, after: bool },
}

impl Finder {
    fn new(values: &[Secret]) -> Option<Self> {
        let mut patterns = BTreeSet::new();
        for value in values {
            let value = value.expose();
            if value.len() >= MIN_BYTES {
                add_forms(value, &mut patterns);
            }
            if value.contains('\n') {
                for line in value.lines().filter(|line| line.len() >= MIN_LINE_BYTES) {
                    add_forms(line, &mut patterns);
                }
            }
        }
        let longest = patterns.iter().map(|(pattern, _)| pattern.len()).max()?;
        let plain = values.iter().map(|value| value.expose().len()).max()?;
        let total: usize = patterns.iter().map(|(pattern, _)| pattern.len()).sum();
        let kind = if total <= FAST_PATTERN_BYTES {
            AhoCorasickKind::DFA
        } else {
            AhoCorasickKind::ContiguousNFA
        };
        let (bytes, kinds): (Vec<_>, Vec<_>) = patterns.into_iter().unzip();
        let patterns = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .kind(Some(kind))
            .start_kind(aho_corasick::StartKind::Unanchored)
            .build(&bytes)
            .ok()?;
        Some(Self {
            patterns,
            kinds,
            longest,
            // Escapes stand in plain values; base64 and hexadecimal have nothing that needs one, beside `+/=`.
            reach: (plain * EXPANSION).max(longest * 4) + 64,
        })
    }

    /// Every occurrence, merged, in order.
    fn find(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        self.find_until(bytes, bytes.len()).0
    }

    /// Occurrences, and how far what was read can be let go without cutting through an escape, at most `until`.
    fn find_until(&self, bytes: &[u8], until: usize) -> (Vec<Range<usize>>, usize) {
        let mut found = Vec::new();
        self.scan(bytes, |range| found.push(range));
        for escape in [Escape::Percent, Escape::Backslash] {
            if let Some(first) = memchr::memchr(escape.mark(), bytes) {
                self.inside(&View::raw(bytes, first, escape, self.longest), DEPTH - 1, &mut found);
            }
        }
        merge(&mut found);
        let until = if until < bytes.len() {
            boundary(bytes, until)
        } else {
            until
        };
        (found, until)
    }

    /// Looks into what was decoded, and decodes it again.
    fn inside(&self, view: &View, depth: usize, found: &mut Vec<Range<usize>>) {
        for piece in view.pieces() {
            let (bytes, places) = piece;
            self.scan(bytes, |range| {
                found.push(places[range.start].0 as usize..places[range.end - 1].1 as usize);
            });
            if depth > 0 {
                for escape in [Escape::Percent, Escape::Backslash] {
                    if memchr::memchr(escape.mark(), bytes).is_some() {
                        self.inside(&View::again(bytes, places, escape), depth - 1, found);
                    }
                }
            }
        }
    }

    fn scan(&self, bytes: &[u8], mut report: impl FnMut(Range<usize>)) {
        let input = aho_corasick::Input::new(bytes).anchored(Anchored::No);
        for found in self.patterns.find_overlapping_iter(input) {
            let (mut start, mut end) = (found.start(), found.end());
            if let Kind::Base64 { before, after } = self.kinds[found.pattern().as_usize()] {
                if before && start > 0 && is_base64(bytes[start - 1]) {
                    start -= 1;
                }
                if after && end < bytes.len() && is_base64(bytes[end]) {
                    end += 1;
                }
            }
            report(start..end);
        }
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

/// Sorted, and those that overlap made one.
fn merge(found: &mut Vec<Range<usize>>) {
    found.sort_unstable_by_key(|range| (range.start, range.end));
    found.dedup_by(|next, last| {
        let joined = next.start < last.end;
        if joined {
            last.end = last.end.max(next.end);
        }
        joined
    });
}

/// The value as it is, in hexadecimal, and the part of its base64 that is the same whatever surrounds it.
fn add_forms(value: &str, patterns: &mut BTreeSet<(Vec<u8>, Kind)>) {
    let bytes = value.as_bytes();
    let mut exact = |pattern: String| patterns.insert((pattern.into_bytes(), Kind::Exact));
    exact(value.to_owned());
    if value.contains(' ') {
        // As forms write it; the percent signs of the rest are decoded before.
        exact(value.replace(' ', "+"));
    }
    exact(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
    exact(bytes.iter().map(|byte| format!("{byte:02X}")).collect());
    for before in 0..3_usize {
        let mut shifted = vec![0; before];
        shifted.extend_from_slice(bytes);
        let bits = shifted.len() * 8;
        let (from, to) = ((before * 8).div_ceil(6), bits / 6);
        let kind = Kind::Base64 {
            before: before > 0,
            after: !bits.is_multiple_of(6),
        };
        for text in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            patterns.insert((text.as_bytes()[from..to].to_vec(), kind));
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    /// `%41`
    Percent,
    /// `\n`, `\"`, `\u0041`, `\x41`
    Backslash,
}

impl Escape {
    const fn mark(self) -> u8 {
        match self {
            Self::Percent => b'%',
            Self::Backslash => b'\\',
        }
    }

    /// Reads the escape at the start of `bytes`: what it means, and how long it is. One that is none means itself.
    fn read(self, bytes: &[u8]) -> (Decoded, usize) {
        match self {
            Self::Percent => match hex(bytes.get(1..3)) {
                Some(byte) => (Decoded::byte(byte.to_le_bytes()[0]), 3),
                None => (Decoded::byte(b'%'), 1),
            },
            Self::Backslash => backslash(bytes),
        }
    }

    /// The last place at or before `until` that is in no escape of this kind.
    fn boundary(self, bytes: &[u8], until: usize) -> usize {
        let mut at = memchr::memchr(self.mark(), bytes).unwrap_or(until);
        while at < until {
            let (_, length) = self.read(&bytes[at..]);
            if at + length > until {
                return at;
            }
            at += length;
            match memchr::memchr(self.mark(), &bytes[at..]) {
                Some(next) => at += next,
                None => break,
            }
        }
        until
    }
}

/// A place at or before `until` where text can be cut without cutting an escape: one with none close before it, so that
/// escapes of escapes stay whole too; else one that is in none.
fn boundary(bytes: &[u8], until: usize) -> usize {
    let mut quiet = until;
    for _ in 0..QUIET_TRIES {
        let before = &bytes[quiet.saturating_sub(QUIET)..quiet];
        match memchr::memrchr2(b'%', b'\\', before) {
            None => return quiet,
            Some(at) => quiet = quiet - before.len() + at,
        }
    }
    let mut cut = until;
    loop {
        let next = [Escape::Percent, Escape::Backslash]
            .into_iter()
            .fold(cut, |cut, escape| escape.boundary(bytes, cut));
        if next == cut {
            return cut;
        }
        cut = next;
    }
}

fn hex(digits: Option<&[u8]>) -> Option<u32> {
    digits?
        .iter()
        .try_fold(0, |sum, digit| Some((sum << 4) | char::from(*digit).to_digit(16)?))
}

fn backslash(bytes: &[u8]) -> (Decoded, usize) {
    let one = |byte| (Decoded::byte(byte), 2);
    let wide = |digits: usize| {
        let code = char::from_u32(hex(bytes.get(2..2 + digits))?)?;
        Some((Decoded::char(code), 2 + digits))
    };
    let itself = (Decoded::byte(b'\\'), 1);
    match bytes.get(1) {
        Some(b'n') => one(b'\n'),
        Some(b'r') => one(b'\r'),
        Some(b't') => one(b'\t'),
        Some(b'b') => one(8),
        Some(b'f') => one(12),
        Some(byte @ (b'"' | b'\'' | b'\\' | b'/')) => one(*byte),
        Some(b'x') => match hex(bytes.get(2..4)) {
            Some(byte) => (Decoded::byte(byte.to_le_bytes()[0]), 4),
            None => itself,
        },
        Some(b'U') => wide(8).unwrap_or(itself),
        Some(b'u') => wide(4).or_else(|| surrogates(bytes)).unwrap_or(itself),
        _ => itself,
    }
}

fn surrogates(bytes: &[u8]) -> Option<(Decoded, usize)> {
    let high = hex(bytes.get(2..6))?.checked_sub(0xd800).filter(|high| *high < 0x400)?;
    let low = bytes
        .get(6..8)
        .filter(|mark| *mark == b"\\u")
        .and(hex(bytes.get(8..12)))?;
    let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    let code = char::from_u32(0x10000 + (high << 10) + low)?;
    Some((Decoded::char(code), 12))
}

/// One to four bytes.
struct Decoded {
    bytes: [u8; 4],
    length: usize,
}

impl Decoded {
    const fn byte(byte: u8) -> Self {
        Self {
            bytes: [byte, 0, 0, 0],
            length: 1,
        }
    }

    fn char(code: char) -> Self {
        let mut bytes = [0; 4];
        let length = code.encode_utf8(&mut bytes).len();
        Self { bytes, length }
    }
}

/// Where a decoded byte comes from.
type Place = (u32, u32);

/// Text without one kind of escape, and where each byte of it comes from. What is far from every escape is left out.
struct View {
    bytes: Vec<u8>,
    places: Vec<Place>,
    /// Where something was left out.
    gaps: Vec<usize>,
}

impl View {
    fn raw(source: &[u8], first: usize, escape: Escape, longest: usize) -> Self {
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let mut view = Self {
            bytes: Vec::new(),
            places: Vec::new(),
            gaps: Vec::new(),
        };
        let copy = |view: &mut Self, from: usize, to: usize| {
            view.bytes.extend_from_slice(&source[from..to]);
            view.places.extend((from..to).map(|at| (place(at), place(at + 1))));
        };
        // One more on each side, for the neighbour that carries some bits.
        let near = longest + 1;
        let mut at = first.saturating_sub(near);
        copy(&mut view, at, first);
        at = first;
        while at < source.len() {
            let (decoded, length) = escape.read(&source[at..]);
            view.bytes.extend_from_slice(&decoded.bytes[..decoded.length]);
            let places = (place(at), place(at + length));
            view.places.extend(std::iter::repeat_n(places, decoded.length));
            at += length;
            let next = memchr::memchr(escape.mark(), &source[at..]).map(|next| at + next);
            let end = next.unwrap_or(source.len());
            if end - at > 2 * near {
                copy(&mut view, at, at + near);
                view.gaps.push(view.bytes.len());
                if next.is_some() {
                    copy(&mut view, end - near, end);
                }
            } else {
                copy(&mut view, at, end);
            }
            at = end;
        }
        view
    }

    fn again(source: &[u8], from: &[Place], escape: Escape) -> Self {
        let mut view = Self {
            bytes: Vec::with_capacity(source.len()),
            places: Vec::with_capacity(source.len()),
            gaps: Vec::new(),
        };
        let mut at = 0;
        while at < source.len() {
            if source[at] == escape.mark() {
                let (decoded, length) = escape.read(&source[at..]);
                view.bytes.extend_from_slice(&decoded.bytes[..decoded.length]);
                let places = (from[at].0, from[at + length - 1].1);
                view.places.extend(std::iter::repeat_n(places, decoded.length));
                at += length;
            } else {
                view.bytes.push(source[at]);
                view.places.push(from[at]);
                at += 1;
            }
        }
        view
    }

    fn pieces(&self) -> impl Iterator<Item = (&[u8], &[Place])> {
        let starts = std::iter::once(0).chain(self.gaps.iter().copied());
        let ends = self.gaps.iter().copied().chain(std::iter::once(self.bytes.len()));
        starts
            .zip(ends)
            .map(|(start, end)| (&self.bytes[start..end], &self.places[start..end]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn masker(values: &[&str]) -> Masker {
        let values: Vec<_> = values.iter().map(|value| Secret::value(*value)).collect();
        Masker::of(&values)
    }

    fn percent(text: &str, keep: impl Fn(u8) -> bool, upper: bool) -> String {
        let escaped = |byte: u8| {
            if keep(byte) {
                char::from(byte).to_string()
            } else if upper {
                format!("%{byte:02X}")
            } else {
                format!("%{byte:02x}")
            }
        };
        text.bytes().map(escaped).collect()
    }

    fn unicode_escapes(text: &str) -> String {
        text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect()
    }

    fn hexed(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Every form that the head of this file promises.
    fn forms(value: &str) -> Vec<String> {
        use base64::engine::general_purpose::{STANDARD, URL_SAFE};
        let quoted = |text: &str| {
            let json = serde_json::to_string(text).unwrap();
            json[1..json.len() - 1].to_owned()
        };
        let json = quoted(value);
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let mut forms = vec![
            value.to_owned(),
            hexed(value.as_bytes()),
            hexed(value.as_bytes()).to_uppercase(),
            percent(value, unreserved, true),
            percent(value, unreserved, false),
            percent(value, |byte| unreserved(byte) || b"/!'()*".contains(&byte), true),
            percent(value, |_| false, true),
            percent(value, |_| false, false),
            url::form_urlencoded::byte_serialize(value.as_bytes()).collect(),
            json.replace('/', "\\/"),
            unicode_escapes(value),
            unicode_escapes(value).to_lowercase(),
            quoted(&json),
            percent(&json, unreserved, true),
            percent(&percent(value, unreserved, true), unreserved, true),
            json,
        ];
        for before in ["", "x", "yz", "user:"] {
            for after in ["", "q", "rs", "tuv"] {
                let text = format!("{before}{value}{after}");
                for coded in [
                    STANDARD.encode(&text),
                    URL_SAFE.encode(&text),
                    STANDARD_NO_PAD.encode(&text),
                    URL_SAFE_NO_PAD.encode(&text),
                ] {
                    forms.push(percent(&coded, unreserved, true));
                    forms.push(coded);
                }
            }
        }
        forms
    }

    fn streamed(masker: &Masker, text: &[u8], cuts: &[usize]) -> Vec<u8> {
        let (mut out, mut at, mut stream) = (Vec::new(), 0, masker.stream());
        for cut in cuts.iter().cycle().take(4 * text.len() / cuts.len().max(1) + 4) {
            let end = (at + cut).min(text.len());
            stream.push(&text[at..end], &mut out);
            at = end;
        }
        stream.push(&text[at..], &mut out);
        stream.finish(&mut out);
        out
    }

    const AROUND: [(&str, &str); 6] = [
        ("", ""),
        ("the key is ", ", they said"),
        ("{\"a\":\"\\n", "\\\\\"}"),
        ("https://example.org/?q=%20", "%0A&x=1"),
        ("é\\u00e9 %C3%A9 100% ", " 50%"),
        ("C:\\temp\\ is ", "\\file"),
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn no_form_survives_whatever_the_pieces(
            value in "[!-~é€😀 ]{4,40}",
            around in 0..AROUND.len(),
            cuts in prop::collection::vec(1..90_usize, 1..6),
            far in prop::bool::ANY,
        ) {
            let masker = masker(&[&value, "another-secret"]);
            let (before, after) = AROUND[around];
            let gap = if far { "all quiet here. ".repeat(300) } else { String::new() };
            for form in forms(&value) {
                let text = format!("{gap}{before}{form}{after}{gap}");
                let masked = masker.text(&text).into_owned();
                prop_assert!(masked.contains(MASK), "{form:?} in {text:?} gave {masked:?}");
                // What is left of the form is at most its ends: padding, or bits of neighbours.
                if form.len() > 12 && !before.contains(&form) {
                    prop_assert!(!masked.contains(&form[form.char_indices().nth(3).unwrap().0..]), "{form:?}: {masked:?}");
                }
                let out = streamed(&masker, text.as_bytes(), &cuts);
                prop_assert_eq!(String::from_utf8_lossy(&out), masked.as_str());
            }
        }

        #[test]
        fn text_without_secrets_is_unchanged(text in prop::collection::vec(any::<u8>(), 0..3000), cut in 1..200_usize) {
            let masker = masker(&["correct horse battery", "p@ss/w0rd+\"x\"", "línea\nsegunda línea"]);
            prop_assert!(matches!(masker.bytes(&text), Cow::Borrowed(_)));
            prop_assert_eq!(streamed(&masker, &text, &[cut]), text);
        }
    }

    #[test]
    fn dense_escapes_are_cut_well() {
        let masker = masker(&["tell-nobody"]);
        for form in [percent("tell-nobody", |_| false, true), unicode_escapes("tell-nobody")] {
            let noise = &form[..form.len() / 11];
            let text = format!("{}{form}{}", noise.repeat(700), noise.repeat(700));
            let masked = masker.text(&text).into_owned();
            assert_eq!(masked.matches(MASK).count(), 1);
            for cut in [1, 7, 64, 1000] {
                assert_eq!(streamed(&masker, text.as_bytes(), &[cut]), masked.as_bytes());
            }
        }
    }

    #[test]
    fn overlapping_occurrences_are_one_and_touching_ones_two() {
        let masker = masker(&["abcd1234", "1234wxyz"]);
        assert_eq!(masker.text("-abcd1234wxyz-"), "-***-");
        assert_eq!(masker.text("-abcd1234abcd1234-"), "-******-");
    }

    #[test]
    fn lines_of_a_value_are_masked_by_themselves() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nshort\n-----END KEY-----\n";
        let masker = masker(&[key]);
        assert_eq!(masker.text("said: MIIEvQIBADANBgkq!"), "said: ***!");
        assert_eq!(masker.text("short"), "short");
        assert_eq!(masker.text(&format!("<{key}>")), "<***>");
    }

    #[test]
    fn json_is_masked_in_every_corner() {
        let masker = masker(&["12345678", "tell-nobody"]);
        let mut value = json!({"a": ["x tell-nobody", {"tell-nobody": 12345678}], "n": 12, "b": "x"});
        masker.json(&mut value);
        assert_eq!(value, json!({"a": ["x ***", {"***": "***"}], "n": 12, "b": "x"}));
    }

    #[test]
    fn what_is_added_holds_for_clones_from_then_on() {
        let masker = Masker::default();
        let clone = masker.clone();
        assert!(clone.is_empty());
        assert!(matches!(clone.text("tell-nobody"), Cow::Borrowed(_)));
        masker.add(&Secret::value("tell-nobody"));
        masker.add(&Secret::value("abc"));
        assert_eq!(clone.text("tell-nobody abc"), "*** abc");
        assert!(!format!("{clone:?}").contains("nobody"));
    }
}
