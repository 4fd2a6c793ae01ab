//! From pieces of a text to its lines: each line once, and only a bounded part of one in memory.

/// A line whose end has not come yet.
#[derive(Debug, Default)]
pub(super) struct Split {
    tail: Vec<u8>,
    /// Whether the rest of a line is skipped: it is too long, or was begun in the middle.
    skipping: bool,
}

/// The longest line; proxies' own limits are below it.
pub(super) const LONGEST: usize = 64 << 10;

impl Split {
    /// Lines of a text that is read from somewhere in the middle.
    pub(super) fn in_the_middle() -> Self {
        Self { tail: Vec::new(), skipping: true }
    }

    /// Hands over every line that ends in this piece; of a line that is too long, its beginning.
    pub(super) fn feed(&mut self, read: &[u8], each: &mut dyn FnMut(&[u8])) {
        let mut rest = read;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.skipping {
                self.skipping = false;
            } else if self.tail.is_empty() {
                each(line);
            } else {
                self.tail.extend_from_slice(line);
                each(&self.tail);
            }
            self.tail.clear();
        }
        if !self.skipping {
            self.tail.extend_from_slice(rest);
        }
        if self.tail.len() > LONGEST {
            each(&self.tail);
            self.tail.clear();
            self.skipping = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_once_however_the_text_is_cut() {
        let text = b"one\ntwo\n\nthree\nfo";
        for size in 1..text.len() {
            let (mut split, mut lines) = (Split::default(), Vec::new());
            for piece in text.chunks(size) {
                split.feed(piece, &mut |line| lines.push(String::from_utf8_lossy(line).into_owned()));
            }
            assert_eq!(lines, ["one", "two", "", "three"], "pieces of {size}");
        }
        let mut lines = 0;
        Split::in_the_middle().feed(b"half\nwhole\n", &mut |_| lines += 1);
        assert_eq!(lines, 1);
    }
}
