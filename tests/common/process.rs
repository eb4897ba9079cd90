//! The program as a process of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

/// Returns the program's command, with its own environment variables unset.
pub fn otproxy(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otproxy"));
    command.args(arguments);
    alone(command)
}

/// Returns the same command, started by another program, which gets it behind its own arguments.
pub fn through(command: Command, program: &str, arguments: &[&str]) -> Command {
    let mut outer = Command::new(program);
    outer.args(arguments).arg(command.get_program()).args(command.get_args());
    alone(outer)
}

fn alone(mut command: Command) -> Command {
    for variable in
        ["OTPROXY_LOG_FORMAT", "OTPROXY_LOG_LEVEL", "NOTIFY_SOCKET", "FDSTORE", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID"]
    {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Returns its output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Returns the stderr of a program that ended with `code`; its stdout must be empty.
#[track_caller]
pub fn failed(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    text(&output.stderr)
}

/// Writes a file of this test, in the target directory; of this run, as another may be under way there.
pub fn file(name: &str, contents: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
    fs::write(&path, contents).expect("writable file");
    path
}

/// A program that runs, and its stderr. It is killed where the test fails.
pub struct Running {
    child: Child,
    stderr: BufReader<Box<dyn Read + Send>>,
    /// The lines before the one that said `ready`.
    before: String,
}

impl Running {
    /// Starts it and reads stderr up to the line that says `ready`, which is given too.
    pub fn start(mut command: Command) -> (Self, String) {
        let mut running = Self::of(command.spawn().expect("the program starts"));
        let (before, ready) = running.lines_to("ready");
        running.before = before;
        (running, ready)
    }

    /// Takes a program that has just been started.
    pub fn of(mut child: Child) -> Self {
        let stderr: Box<dyn Read + Send> = Box::new(child.stderr.take().expect("piped"));
        Self { child, stderr: BufReader::new(stderr), before: String::new() }
    }

    pub fn line_with(&mut self, what: &str) -> String {
        self.lines_to(what).1
    }

    /// Reads up to a line with that; returns the lines before it, and it.
    fn lines_to(&mut self, what: &str) -> (String, String) {
        let mut before = String::new();
        loop {
            let mut line = String::new();
            let read = self.stderr.read_line(&mut line).expect("readable stderr");
            assert_ne!(read, 0, "no line with {what:?} in:\n{before}");
            if line.contains(what) {
                return (before, line);
            }
            before += &line;
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the program runs");
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns what follows on stderr, for somebody else to read: a full pipe would hold the program up.
    pub fn take_stderr(&mut self) -> impl BufRead + Send + use<> {
        std::mem::replace(&mut self.stderr, BufReader::new(Box::new(std::io::empty())))
    }

    /// Reads on what follows on stderr, for as long as it runs, and gives it behind what came before `ready`.
    pub fn follow(&mut self) -> Log {
        let log = Log::default();
        log.0.lock().unwrap().push_str(&std::mem::take(&mut self.before));
        let (stderr, to) = (self.take_stderr(), Arc::clone(&log.0));
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                to.lock().unwrap().extend([line.as_str(), "\n"]);
            }
        });
        log
    }

    /// Returns the number of open descriptors now.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).map_or(0, Iterator::count)
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end, and returns its exit code and the rest of stderr.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).expect("readable stderr");
        (self.child.wait().expect("it ends").code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The stderr of a program so far.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<String>>);

impl Log {
    pub fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}
