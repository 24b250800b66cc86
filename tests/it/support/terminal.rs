//! A terminal with a program on it.

use std::fs::File;
use std::io::{Read, Write};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Longest wait for what it shows.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Terminal {
    keyboard: File,
    pieces: mpsc::UnboundedReceiver<Vec<u8>>,
    child: Child,
    /// All that was shown so far.
    pub(crate) seen: String,
}

impl Terminal {
    /// Starts a program on a terminal of its own.
    pub(crate) fn start(mut command: Command, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(&master, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let screen = || File::options().read(true).write(true).open(&name).unwrap();
        let child = command.stdin(screen()).stdout(screen()).stderr(screen()).spawn().unwrap();
        // Its copies of the terminal's other end would keep the terminal open.
        drop(command);
        let keyboard = File::from(master);
        let mut display = keyboard.try_clone().unwrap();
        let (sender, pieces) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = display.read(&mut piece) {
                let _ = sender.send(piece[..length].to_vec());
            }
        });
        Self { keyboard, pieces, child, seen: String::new() }
    }

    /// Waits until a text was shown, and forgets what was shown up to its end.
    pub(crate) async fn shows(&mut self, text: &str) {
        let found = timeout(PATIENCE, async {
            loop {
                if let Some(at) = self.seen.find(text) {
                    self.seen.drain(..at + text.len());
                    return true;
                }
                let Some(piece) = self.pieces.recv().await else { return false };
                self.seen += &String::from_utf8_lossy(&piece);
            }
        });
        assert!(found.await.unwrap_or_default(), "no {text:?} in {:?}", self.seen);
    }

    /// Types a line.
    pub(crate) fn types(&mut self, line: &str) {
        self.keyboard.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// What Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        let id = self.child.id().expect("it runs").to_string();
        assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    }

    /// Waits for its end; how it ended, and all that it showed.
    pub(crate) async fn ends(mut self) -> (ExitStatus, String) {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("an end in time").unwrap();
        while let Some(piece) = self.pieces.recv().await {
            self.seen += &String::from_utf8_lossy(&piece);
        }
        (status, self.seen)
    }
}
