//! A long text that is written piece by piece, so that it never needs one piece of memory, nor twice its size.

use std::fmt;

use bytes::Bytes;

/// The text so far.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    done: Vec<Bytes>,
    current: String,
}

/// A piece has this many bytes at most, but for what is written at once.
const PIECE: usize = 64 << 10;

impl Pieces {
    /// All of it.
    pub(super) fn whole(mut self) -> Vec<Bytes> {
        self.turn();
        self.done
    }

    fn turn(&mut self) {
        if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current).into());
        }
    }
}

impl fmt::Write for Pieces {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.current.len() + text.len() > PIECE {
            self.turn();
        }
        if self.current.capacity() == 0 {
            self.current.reserve_exact(PIECE.max(text.len()));
        }
        self.current.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn nothing_is_lost_between_pieces_and_none_is_large() {
        let mut pieces = Pieces::default();
        let mut expected = String::new();
        for nth in 0..20_000 {
            writeln!(pieces, "line {nth}").unwrap();
            writeln!(expected, "line {nth}").unwrap();
        }
        let long = "x".repeat(PIECE + 1);
        pieces.write_str(&long).unwrap();
        expected += &long;
        let whole = pieces.whole();
        assert!(whole.len() > 3 && whole[..whole.len() - 1].iter().all(|piece| piece.len() <= PIECE));
        assert_eq!(whole.concat(), expected.into_bytes());
        assert!(Pieces::default().whole().is_empty());
    }
}
