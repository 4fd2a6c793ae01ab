//! One log file, followed through rotation: by rename, where the old file is read on, and by truncation.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};

use super::split::Split;

/// A file and how far it was read. Only a part of it is ever in memory.
#[derive(Debug)]
pub(super) struct Follower {
    path: PathBuf,
    open: Option<Open>,
    /// The files that had this name before, the last one last: whoever writes may go on doing so, as NGINX's old workers do
    /// for as long as their requests last.
    old: VecDeque<Old>,
    started: bool,
    /// Whether lines may be lost, of which nobody was told yet.
    lost: bool,
}

#[derive(Debug)]
struct Old {
    open: Open,
    /// When it was renamed, or grew last.
    moved: Timestamp,
    /// Whether it grew after it was renamed.
    late: bool,
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
/// So many files that had the name before are read on.
const MOST_OLD: usize = 4;
/// An old file that has not grown for this long is let go.
const KEPT: SignedDuration = SignedDuration::from_hours(1);
/// And one that was deleted, whose place on the disk is not free before.
const KEPT_DELETED: SignedDuration = SignedDuration::from_mins(10);
/// Whoever wrote to an old file this lately may write to it again.
const BUSY: SignedDuration = SignedDuration::from_mins(1);

impl Follower {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, open: None, old: VecDeque::new(), started: false, lost: false }
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Hands over every line that was written since the last step, and whether lines may have been lost.
    ///
    /// # Errors
    /// When the file is not there, or cannot be read.
    pub(super) fn step(&mut self, now: Timestamp, each: &mut dyn FnMut(&[u8])) -> io::Result<Step> {
        self.read_old(now, each);
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
                    self.lost = true;
                    open.rewind()?;
                }
                open.read(each)?;
            }
            Some(_) => {
                self.retire(now, each);
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
        Ok(Step { lost: std::mem::take(&mut self.lost) })
    }

    /// Reads on what had this name before.
    fn read_old(&mut self, now: Timestamp, each: &mut dyn FnMut(&[u8])) {
        let lost = &mut self.lost;
        self.old.retain_mut(|old| {
            let kept = old.step(now, each, lost);
            *lost |= kept.is_err();
            kept.unwrap_or(false)
        });
    }

    /// The open file has another name now.
    fn retire(&mut self, now: Timestamp, each: &mut dyn FnMut(&[u8])) {
        if let Some(mut open) = self.open.take() {
            self.lost |= open.read(each).is_err();
            self.old.push_back(Old { open, moved: now, late: false });
        }
        if self.old.len() > MOST_OLD
            && let Some(oldest) = self.old.pop_front()
        {
            self.lost |= oldest.late && now.duration_since(oldest.moved) < BUSY;
        }
    }
}

impl Old {
    /// Reads what was written meanwhile, and tells whether to go on doing so.
    fn step(&mut self, now: Timestamp, each: &mut dyn FnMut(&[u8]), lost: &mut bool) -> io::Result<bool> {
        let meta = self.open.file.metadata()?;
        if meta.len() < self.open.position {
            *lost = true;
            self.open.rewind()?;
        }
        if meta.len() > self.open.position {
            self.open.read(each)?;
            (self.moved, self.late) = (now, true);
        }
        let kept = if meta.nlink() == 0 { KEPT_DELETED } else { KEPT };
        Ok(now.duration_since(self.moved) < kept)
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
        step_at(follower, 0)
    }

    fn step_at(follower: &mut Follower, minute: i64) -> (Vec<String>, Step) {
        let mut lines = Vec::new();
        let now = Timestamp::from_second(minute * 60).unwrap();
        let step = follower.step(now, &mut |line| lines.push(String::from_utf8_lossy(line).into_owned()));
        (lines, step.unwrap())
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
        assert!(follower.step(Timestamp::UNIX_EPOCH, &mut |_| {}).is_err(), "there is no file of this name");
        place.write("e\n");
        let (lines, what) = step(&mut follower);
        assert_eq!((lines, what.lost), (vec!["e".to_owned()], false));
        late.write_all(b"very late\n").unwrap();
        assert_eq!(step(&mut follower).0, ["very late"]);
        late.write_all(b"half an hour ").unwrap();
        assert_eq!(step_at(&mut follower, 30), (vec![], Step { lost: false }));
        late.write_all(b"and more later\n").unwrap();
        assert_eq!(step_at(&mut follower, 80).0, ["half an hour and more later"]);
    }

    #[test]
    fn the_files_before_are_few_and_let_go_when_nobody_writes_to_them() {
        let place = Place::new("old");
        let mut follower = Follower::new(place.0.join("log"));
        let (log, moved) = (place.0.join("log"), |number: i64| place.0.join(format!("log.{number}")));
        for number in 0..9 {
            place.write("line\n");
            assert_eq!(step_at(&mut follower, number * 5).0, ["line"]);
            fs::rename(&log, moved(number)).unwrap();
        }
        place.write("line\n");
        step_at(&mut follower, 45);
        assert_eq!(follower.old.len(), MOST_OLD);
        fs::remove_file(moved(8)).unwrap();
        step_at(&mut follower, 54);
        assert_eq!(follower.old.len(), MOST_OLD);
        step_at(&mut follower, 55);
        assert_eq!(follower.old.len(), MOST_OLD - 1, "the deleted one takes place on the disk");
        step_at(&mut follower, 105);
        assert_eq!(follower.old.len(), 0);
    }

    #[test]
    fn a_file_that_somebody_still_writes_to_is_not_let_go_in_silence() {
        let place = Place::new("busy");
        let mut follower = Follower::new(place.0.join("log"));
        let log = place.0.join("log");
        place.write("line\n");
        step(&mut follower);
        let mut late = OpenOptions::new().append(true).open(&log).unwrap();
        let mut lost = Vec::new();
        for number in 0..=MOST_OLD {
            fs::rename(&log, place.0.join(format!("log.{number}"))).unwrap();
            place.write("line\n");
            lost.push(step(&mut follower).1.lost);
            late.write_all(b"late\n").unwrap();
        }
        assert_eq!(lost, [false, false, false, false, true]);
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
