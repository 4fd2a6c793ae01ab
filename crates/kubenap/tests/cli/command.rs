//! Runs the program with an environment of its own, in which there is no cluster.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;
use tokio::runtime::Builder;
use tokio::time::timeout;

/// No command here has anything to wait for.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A home folder with nothing in it, and what is set in the environment.
pub(crate) struct Home {
    folder: TempDir,
    program: PathBuf,
    variables: Vec<(String, String)>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Home {
    pub(crate) fn empty() -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_kubenap"));
        Self { folder: TempDir::new().unwrap(), program, variables: Vec::new() }
    }

    /// With a kubeconfig whose cluster nobody serves.
    pub(crate) fn with_dead_cluster() -> Self {
        Self::with_cluster("http://127.0.0.1:1")
    }

    /// With a kubeconfig that leads to this API server.
    pub(crate) fn with_cluster(server: &str) -> Self {
        let home = Self::empty();
        let path = home.file(
            "kubeconfig",
            &format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: dead\n\
                 clusters: [{{name: dead, cluster: {{server: \"{server}\"}}}}]\n\
                 users: [{{name: nobody, user: {{}}}}]\n\
                 contexts: [{{name: dead, context: {{cluster: dead, user: nobody}}}}]\n"
            ),
        );
        home.set("KUBECONFIG", path.to_str().unwrap())
    }

    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With the program linked under another name.
    pub(crate) fn called(mut self, name: &str) -> Self {
        let link = self.folder.path().join(name);
        std::os::unix::fs::symlink(&self.program, &link).unwrap();
        self.program = link;
        self
    }

    /// Writes a file into it.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The program, ready to be started; it ends with what it was started by.
    pub(crate) fn program(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env_clear().env("HOME", self.folder.path()).env("COLUMNS", "100");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs it to its end.
    pub(crate) fn kubenap(&self, args: &[&str]) -> Ended {
        Self::ended(self.program(args), args)
    }

    /// The same with a file as its standard input.
    pub(crate) fn kubenap_reading(&self, file: &str, args: &[&str]) -> Ended {
        let mut program = self.program(args);
        program.stdin(std::fs::File::open(file).unwrap());
        Self::ended(program, args)
    }

    fn ended(mut program: Command, args: &[&str]) -> Ended {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let output = runtime
            .block_on(async { timeout(LIMIT, program.output()).await })
            .unwrap_or_else(|_| panic!("`kubenap {}` does not end", args.join(" ")))
            .unwrap();
        Ended {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    /// Nothing on stdout, all of these on stderr, and this exit code.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.out, "", "{self:#?}");
        for words in says {
            assert!(self.err.contains(words), "no `{words}` in {self:#?}");
        }
    }
}
