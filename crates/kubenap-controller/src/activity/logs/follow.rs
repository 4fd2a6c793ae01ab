//! One log file, followed through rotation: by rename, where the old file is read to its end, and by truncation.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::split::Split;

/// A file and how far it was read. Only a part of it is ever in memory.
#[derive(Debug)]
pub(super) struct Follower {
    path: PathBuf,
    open: Option<Open>,
    /// The file that had this name before: whoever writes may do so for a moment after the rename.
    old: Option<Open>,
    started: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    inode: u64,
    position: u64,
    /// How the file begins: another beginning is another content, whatever its length.
    head: Vec<u8>,
    /// A line whose end was not written yet.
    split: Split,
}

/// What became of the file meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// It was truncated, or replaced by one whose beginning was not seen: lines may be lost.
    pub(super) lost: bool,
}

/// So much is read at once.
const CHUNK: usize = 256 << 10;
/// At the start no more than this of a file's end is read.
const RECENT: u64 = 64 << 20;
const HEAD: usize = 64;

impl Follower {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, open: None, old: None, started: false }
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Hands over every line that was written since the last step, and whether lines may have been lost.
    ///
    /// # Errors
    /// When the file is not there, or cannot be read.
    pub(super) fn step(&mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<Step> {
        let mut step = Step::default();
        if let Some(mut old) = self.old.take() {
            old.read(each)?;
        }
        let (inode, length) = match std::fs::metadata(&self.path) {
            Ok(meta) => (meta.ino(), meta.len()),
            Err(error) => {
                // Between rename and creation there is no file of this name; the old one is still read.
                if let Some(open) = &mut self.open {
                    open.read(each)?;
                }
                return Err(error);
            }
        };
        match &mut self.open {
            Some(open) if open.inode == inode => {
                if length < open.position || open.begins_otherwise()? {
                    step.lost = true;
                    open.rewind()?;
                }
                open.read(each)?;
            }
            Some(_) => {
                let mut old = self.open.take();
                if let Some(old) = &mut old {
                    old.read(each)?;
                }
                self.old = old;
                let mut open = Open::at(&self.path, 0)?;
                open.read(each)?;
                self.open = Some(open);
            }
            None => {
                let from = if self.started { 0 } else { length.saturating_sub(RECENT) };
                let mut open = Open::at(&self.path, from)?;
                open.read(each)?;
                self.open = Some(open);
                self.started = true;
            }
        }
        Ok(step)
    }
}

impl Open {
    fn at(path: &std::path::Path, position: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let inode = file.metadata()?.ino();
        let split = if position > 0 { Split::in_the_middle() } else { Split::default() };
        let mut open = Self { file, inode, position, head: Vec::new(), split };
        open.head = open.begins()?;
        Ok(open)
    }

    fn begins(&mut self) -> io::Result<Vec<u8>> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut head = Vec::with_capacity(HEAD);
        (&mut self.file).take(HEAD as u64).read_to_end(&mut head)?;
        Ok(head)
    }

    fn begins_otherwise(&mut self) -> io::Result<bool> {
        let head = self.begins()?;
        let otherwise = !head.starts_with(&self.head);
        self.head = head;
        Ok(otherwise)
    }

    fn rewind(&mut self) -> io::Result<()> {
        self.head = self.begins()?;
        self.position = 0;
        self.split = Split::default();
        Ok(())
    }

    fn read(&mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.position))?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = self.file.read(&mut chunk)?;
            let Some(read) = chunk.get(..count).filter(|read| !read.is_empty()) else { return Ok(()) };
            self.position += count as u64;
            self.split.feed(read, each);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write as _;

    use super::super::split::LONGEST;
    use super::*;

    /// A folder of its own, which goes when the test is over.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let place = std::env::temp_dir().join(format!("kubenap-follow-{name}-{}", std::process::id()));
            fs::create_dir_all(&place).unwrap();
            Self(place)
        }

        fn write(&self, text: &str) {
            let file = OpenOptions::new().create(true).append(true).open(self.0.join("log"));
            file.unwrap().write_all(text.as_bytes()).unwrap();
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn step(follower: &mut Follower) -> (Vec<String>, Step) {
        let mut lines = Vec::new();
        let step = follower.step(&mut |line| lines.push(String::from_utf8_lossy(line).into_owned())).unwrap();
        (lines, step)
    }

    #[test]
    fn each_line_comes_once_through_renames_and_late_writes() {
        let place = Place::new("rename");
        let mut follower = Follower::new(place.0.join("log"));
        place.write("a\nb\nhal");
        assert_eq!(step(&mut follower).0, ["a", "b"]);
        place.write("f\nc\n");
        assert_eq!(step(&mut follower).0, ["half", "c"]);
        let mut late = OpenOptions::new().append(true).open(place.0.join("log")).unwrap();
        fs::rename(place.0.join("log"), place.0.join("log.1")).unwrap();
        late.write_all(b"d\n").unwrap();
        assert!(follower.step(&mut |_| {}).is_err(), "there is no file of this name");
        place.write("e\n");
        let (lines, what) = step(&mut follower);
        assert_eq!((lines, what.lost), (vec!["e".to_owned()], false));
        late.write_all(b"very late\n").unwrap();
        assert_eq!(step(&mut follower).0, ["very late"]);
    }

    #[test]
    fn a_truncation_is_told_even_if_the_file_has_grown_again() {
        let place = Place::new("truncate");
        let mut follower = Follower::new(place.0.join("log"));
        place.write("first line\nsecond line\n");
        step(&mut follower);
        File::create(place.0.join("log")).unwrap();
        place.write("third\n");
        assert_eq!(step(&mut follower), (vec!["third".to_owned()], Step { lost: true }));
        File::create(place.0.join("log")).unwrap();
        place.write("fourth line\nfifth line\n");
        let (lines, what) = step(&mut follower);
        assert_eq!((lines.len(), what.lost), (2, true));
        assert_eq!(step(&mut follower), (vec![], Step { lost: false }));
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let place = Place::new("long");
        let mut follower = Follower::new(place.0.join("log"));
        place.write(&"x".repeat(3 * LONGEST));
        place.write("\nshort\n");
        let (lines, _) = step(&mut follower);
        assert_eq!((lines.len(), lines[1].as_str()), (2, "short"));
    }
}
