//! Measures how fast secrets are found, with twenty of them. Run by `scripts/bench`; never a test.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::time::{Duration, Instant};

use weft::domain::Secret;
use weft::secrets::mask::Masker;

const SECRETS: u64 = 20;
const BYTES: usize = 16 << 20;
const ROUNDS: usize = 3;

fn secret(seed: u64) -> Secret {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(LETTERS[usize::from(state.to_le_bytes()[3] & 63)])
    };
    Secret::value((0..40).map(|_| letter()).collect::<String>())
}

#[expect(clippy::cast_precision_loss, reason = "sizes are small")]
fn report(what: &str, bytes: usize, best: Duration) {
    let figure = format!("{:.0} MB/s", bytes as f64 / 1e6 / best.as_secs_f64());
    println!("{what:<78} {figure}");
}

fn best(mut work: impl FnMut()) -> Duration {
    let mut round = || {
        let begun = Instant::now();
        work();
        begun.elapsed()
    };
    (0..ROUNDS).map(|_| round()).min().unwrap_or_default()
}

fn main() {
    let secrets: Vec<_> = (0..SECRETS).map(secret).collect();
    let made = best(|| drop(Masker::of(&secrets)));
    println!(
        "{:<78} {:.1} ms",
        "masking: getting ready for 20 secrets",
        made.as_secs_f64() * 1e3
    );
    let masker = Masker::of(&secrets);
    let line =
        "2026-11-21T08:00:00Z INFO request 4711 took 12.5 ms for /api/items?page=3, answered 200 with 1532 bytes\n";
    let escaped = "{\"message\":\"{\\\"path\\\":\\\"C:\\\\\\\\temp\\\",\\\"n\\\":1}\\n\",\"url\":\"https://x.example/?q=a%20b%2Fc\"}\n";
    for (what, line) in [("plain lines", line), ("an escape every few bytes", escaped)] {
        let text = line.repeat(BYTES / line.len());
        let lines = best(|| {
            let left: usize = text.lines().map(|line| masker.text(line).len()).sum();
            assert!(left > 0);
        });
        report(&format!("masking: 20 secrets, {what}, line by line"), text.len(), lines);
        let stream = best(|| {
            let (mut out, mut stream) = (Vec::with_capacity(text.len()), masker.stream());
            for piece in text.as_bytes().chunks(64 << 10) {
                stream.push(piece, &mut out);
            }
            stream.finish(&mut out);
            assert_eq!(out.len(), text.len());
        });
        report(&format!("masking: 20 secrets, {what}, as a stream"), text.len(), stream);
    }
}
