//! A set of a few names in one row: thousands of apps have several such sets, and a tree for each would weigh more than they.

use std::ops::Deref;
use std::slice::Iter;

/// Names in order, each once. Made for very few: every change copies all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Box<[String]>);

impl Names {
    /// Whether this is one of them.
    pub fn contains(&self, name: &str) -> bool {
        self.0.binary_search_by(|known| known.as_str().cmp(name)).is_ok()
    }

    /// Takes all of them out.
    pub fn clear(&mut self) {
        self.0 = Box::default();
    }
}

impl Deref for Names {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl FromIterator<String> for Names {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        Self(names.into())
    }
}

impl Extend<String> for Names {
    fn extend<I: IntoIterator<Item = String>>(&mut self, names: I) {
        let mut more = names.into_iter().peekable();
        if more.peek().is_some() {
            *self = std::mem::take(&mut self.0).into_iter().chain(more).collect();
        }
    }
}

impl<const N: usize> From<[String; N]> for Names {
    fn from(names: [String; N]) -> Self {
        names.into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a Names {
    type Item = &'a String;
    type IntoIter = Iter<'a, String>;

    fn into_iter(self) -> Iter<'a, String> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_a_set_however_they_come_in() {
        let mut names = Names::from(["b".to_owned(), "a".to_owned(), "b".to_owned()]);
        assert_eq!(names.to_vec(), ["a", "b"]);
        names.extend(["c".to_owned(), "a".to_owned(), "aa".to_owned()]);
        names.extend([]);
        assert_eq!(names.to_vec(), ["a", "aa", "b", "c"]);
        assert!(names.contains("aa") && !names.contains("ab") && !names.contains(""));
        names.clear();
        assert!(names.is_empty() && names == Names::default());
    }
}
