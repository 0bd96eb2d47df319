//! Thousands of damaged configurations: none panics the reader, and none makes it show a password.

use reid_edge::config::keys;

use super::lenient;

/// A small generator of random numbers (xorshift), the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

const PASSWORD: &str = "hunter2secret";

/// Every key of every section with its example, and the password in all the places where it may stand.
fn complete() -> String {
    let mut out = String::new();
    for source in [
        format!("rtsp://bob:{PASSWORD}@cam:554/stream"),
        format!("https://bob:{PASSWORD}@cam/video.mjpg"),
        format!("http://cam/video?user=bob&password={PASSWORD}"),
        format!("pipeline:rtspsrc location=rtsp://cam user-pw={PASSWORD} ! decodebin"),
        "rtsp://bob:${REID_TEST_UNSET_VARIABLE}@cam/s".to_owned(),
    ] {
        out.push_str(&format!(
            "[[camera]]\nname = \"cam{}\"\nsource = \"{source}\"\n",
            out.len()
        ));
    }
    let mut section = "";
    for key in keys::KEYS {
        if key.section != section {
            section = key.section;
            let repeated = keys::REPEATED.contains(&section);
            out.push_str(&if repeated {
                format!("[[{section}]]\n")
            } else {
                format!("[{section}]\n")
            });
        }
        out.push_str(&format!("{} = {}\n", key.name, key.example));
    }
    out
}

/// Parses, and looks for the password in everything that may be shown; what was wrong.
fn shows_nothing(text: &str, how: &str) -> Option<String> {
    let (config, errors) = lenient(text);
    let mut shown = format!("{config:?}\n");
    for error in &errors {
        shown.push_str(&format!("{error}\n{error:?}\n"));
    }
    shown.push_str(&serde_json::to_string(&errors).unwrap());
    for camera in &config.cameras {
        shown.push_str(&format!("{}\n", camera.source()));
        shown.push_str(&serde_json::to_string(camera).unwrap());
    }
    if let Some(at) = shown.find(PASSWORD) {
        let before = shown[..at].char_indices().rev().take(100).last();
        let start = before.map_or(0, |(i, _)| i);
        return Some(format!("{how}: {}", &shown[start..at + PASSWORD.len()]));
    }
    let lines = text.split('\n').count();
    let places = errors.iter().filter_map(|e| e.line);
    if !places.clone().all(|line| (1..=lines).contains(&line)) {
        return Some(format!("{how}: lines {:?}", places.collect::<Vec<_>>()));
    }
    None
}

#[test]
fn mutations_never_panic_and_never_show_the_password() {
    let text = complete();
    let mut wrong: Vec<String> = shows_nothing(&text, "as it is").into_iter().collect();
    // Every single character left out.
    for (at, c) in text.char_indices() {
        let mut mutant = text.clone();
        mutant.remove(at);
        wrong.extend(shows_nothing(&mutant, &format!("without {c:?} at {at}")));
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let odd: Vec<char> =
        "\"'[]{}=.,#\\\n\r\t !@:/?&$%+-_0aZéß漢\u{0}\u{7f}\u{202e}\u{feff}\u{1f600}"
            .chars()
            .collect();
    for round in 0..5000 {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let mut how = format!("round {round}:");
        for _ in 0..=random.below(4) {
            let (line, other) = (random.below(lines.len()), random.below(lines.len()));
            let kind = random.below(7);
            how.push_str(&format!(" {kind}@{line},{other}"));
            let mut chars: Vec<char> = lines[line].chars().collect();
            let at = random.below(chars.len());
            let (before, after) = (lines[line].clone(), lines[other].clone());
            match kind {
                0 if !chars.is_empty() => {
                    chars.remove(at);
                    lines[line] = chars.into_iter().collect();
                }
                1 => {
                    chars.insert(at, odd[random.below(odd.len())]);
                    lines[line] = chars.into_iter().collect();
                }
                2 if !chars.is_empty() => {
                    chars[at] = odd[random.below(odd.len())];
                    lines[line] = chars.into_iter().collect();
                }
                // The values of two keys.
                3 => {
                    if let (Some((a, x)), Some((b, y))) =
                        (before.split_once(" = "), after.split_once(" = "))
                    {
                        lines[line] = format!("{a} = {y}");
                        lines[other] = format!("{b} = {x}");
                    }
                }
                4 => lines.swap(line, other),
                5 => {
                    lines.remove(line);
                }
                _ => lines.insert(line, after),
            }
        }
        wrong.extend(shows_nothing(&lines.join("\n"), &how));
    }
    assert!(
        wrong.is_empty(),
        "{} of them:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(12)].join("\n")
    );
}
