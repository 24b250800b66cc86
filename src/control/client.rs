//! Who asks: finds the daemon that is meant, and makes sure that it is one.

use std::io;
use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Take};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::place::{Address, Places};
use super::server::is_trusted;
use super::{Answer, Asked, Greeting, Request, VERSION};
use crate::names::ProjectName;

/// How long a daemon may take to say who it is: less than the one that is meant waits for the request, for whoever is
/// silent beside it.
const GREETING_LIMIT: Duration = Duration::from_secs(3);

/// Longest line that is read, in bytes.
const MAX_LINE: u64 = 1 << 20;

/// Which daemon is meant, where several answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meant {
    /// The project that was named: no other is asked.
    pub named: Option<ProjectName>,
    /// The project that we stand in.
    pub implied: Option<ProjectName>,
    /// Address of the Engine, which decides between two daemons of equally named projects.
    pub engine: String,
    /// A container has one daemon, whatever its project: options of the daemon's command line need not be repeated.
    pub in_container: bool,
}

/// Why nobody was asked, or no answer came.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No daemon that is meant answers.
    #[error("no daemon runs here{}{}", others(.found), if *.mistrusted > 0 { "; another user's socket was not believed" } else { "" })]
    NoDaemon {
        /// Daemons that answer and are not meant.
        found: Vec<Greeting>,
        /// Sockets of other users.
        mistrusted: usize,
    },
    /// Several could be meant.
    #[error("several daemons run here{}; say which by --project-name or --socket", others(.0))]
    Several(Vec<Greeting>),
    /// It listens, but says nothing.
    #[error("the daemon at {0} does not answer")]
    Silent(String),
    /// It speaks another version.
    #[error("the daemon understands requests of version {0}, this program sends {VERSION}")]
    Version(u32),
    /// The connection failed.
    #[error("connection to the daemon failed")]
    Connection(#[from] io::Error),
    /// It ended, or was too busy to go on.
    #[error("the daemon ended before it had answered")]
    Ended,
    /// It answers what we do not understand.
    #[error("the daemon's answer is not readable")]
    Unreadable(#[from] serde_json::Error),
    /// It refused.
    #[error("{0}")]
    Refused(String),
}

fn others(found: &[Greeting]) -> String {
    let names: Vec<String> = found.iter().map(|one| format!("{} (pid {})", one.project_name, one.pid)).collect();
    if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) }
}

/// A daemon that said who it is.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<Take<UnixStream>>,
    /// Who it is.
    pub greeting: Greeting,
}

impl Connection {
    /// Finds the daemon that is meant.
    ///
    /// # Errors
    ///
    /// When none or several could be meant.
    pub async fn open(places: &Places, meant: &Meant, own_uid: u32) -> Result<Self, AskError> {
        let sockets = places.sockets();
        let heard = join_all(sockets.iter().map(|address| Self::greeted(address, own_uid))).await;
        let (mut found, mut mistrusted, mut silent) = (Vec::new(), 0, None);
        for (address, heard) in sockets.iter().zip(heard) {
            match heard {
                Ok(Some(connection)) => found.push(connection),
                Ok(None) => mistrusted += 1,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => silent = Some(address.to_string()),
                // Nobody listens there any more, or what listens is none of ours.
                Err(_) => {}
            }
        }
        let greetings: Vec<&Greeting> = found.iter().map(|one| &one.greeting).collect();
        let chosen = if places.socket.is_some() { (0..found.len()).collect() } else { meant.choose(&greetings) };
        match (chosen.as_slice(), silent) {
            ([one], _) => {
                let one = found.swap_remove(*one);
                if one.greeting.version == VERSION { Ok(one) } else { Err(AskError::Version(one.greeting.version)) }
            }
            ([], Some(address)) => Err(AskError::Silent(address)),
            ([], None) => {
                Err(AskError::NoDaemon { found: found.into_iter().map(|one| one.greeting).collect(), mistrusted })
            }
            (several, _) => Err(AskError::Several(
                several.iter().filter_map(|one| found.get(*one)).map(|one| one.greeting.clone()).collect(),
            )),
        }
    }

    /// Connects and hears who it is; none where it is another user's, whatever it would say.
    async fn greeted(address: &Address, own_uid: u32) -> io::Result<Option<Self>> {
        let stream = address.connect().await?;
        if !is_trusted(&stream, own_uid)? {
            return Ok(None);
        }
        let mut stream = BufReader::new(stream.take(MAX_LINE));
        let mut line = String::new();
        let read = timeout(GREETING_LIMIT, stream.read_line(&mut line)).await;
        read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        let greeting = serde_json::from_str(&line)?;
        Ok(Some(Self { stream, greeting }))
    }

    /// Sends the one request.
    ///
    /// # Errors
    ///
    /// When the connection fails.
    pub async fn ask(&mut self, request: Request) -> Result<(), AskError> {
        let mut line = serde_json::to_vec(&Asked { version: VERSION, request })?;
        line.push(b'\n');
        Ok(self.stream.get_mut().get_mut().write_all(&line).await?)
    }

    /// The next line of the answer; none after the last.
    ///
    /// # Errors
    ///
    /// When the connection fails, the line is not readable or the daemon refuses.
    pub async fn next(&mut self) -> Result<Option<Answer>, AskError> {
        self.stream.get_mut().set_limit(MAX_LINE);
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(AskError::Ended);
        }
        match serde_json::from_str(&line)? {
            Answer::Error(reason) => Err(AskError::Refused(reason)),
            Answer::End {} => Ok(None),
            answer => Ok(Some(answer)),
        }
    }
}

impl Meant {
    /// Those of the daemons that answer which could be meant, by their place in the list.
    fn choose(&self, found: &[&Greeting]) -> Vec<usize> {
        let alone_in_container = matches!(found, [one] if self.in_container || one.pid == 1);
        let wanted = match (&self.named, &self.implied) {
            (None, _) if alone_in_container => None,
            (named, implied) => named.as_ref().or(implied.as_ref()),
        };
        let matching = |test: &dyn Fn(&Greeting) -> bool| -> Vec<usize> {
            found.iter().enumerate().filter(|(_, one)| test(one)).map(|(place, _)| place).collect()
        };
        let named = matching(&|one| wanted.is_none_or(|name| *name == one.project_name));
        if named.len() < 2 {
            return named;
        }
        let here = matching(&|one| wanted.is_none_or(|name| *name == one.project_name) && one.engine == self.engine);
        if here.is_empty() { named } else { here }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(project: &str, engine: &str, pid: u32) -> Greeting {
        Greeting { version: VERSION, project_name: project.parse().unwrap(), engine: engine.into(), pid }
    }

    fn chosen(named: Option<&str>, implied: Option<&str>, in_container: bool, found: &[Greeting]) -> Vec<usize> {
        let name = |name: Option<&str>| name.map(|name| name.parse().unwrap());
        let meant = Meant { named: name(named), implied: name(implied), engine: "unix:///a".into(), in_container };
        meant.choose(&found.iter().collect::<Vec<_>>())
    }

    #[test]
    fn on_a_host_the_daemon_of_the_project_that_we_stand_in_is_meant_and_no_other() {
        let found = [daemon("one", "unix:///a", 7), daemon("two", "unix:///a", 8)];
        assert_eq!(chosen(None, Some("two"), false, &found), [1]);
        assert_eq!(chosen(Some("one"), Some("two"), false, &found), [0]);
        assert_eq!(chosen(None, Some("three"), false, &found), [0; 0]);
        assert_eq!(chosen(None, Some("three"), false, &found[..1]), [0; 0], "an answer of another project is none");
        assert_eq!(chosen(None, None, false, &found), [0, 1], "not known: all could be");
        assert_eq!(chosen(None, None, false, &found[..1]), [0]);
    }

    #[test]
    fn a_containers_one_daemon_is_meant_whatever_its_options_were() {
        let found = [daemon("named-on-its-command-line", "unix:///a", 7)];
        assert_eq!(chosen(None, Some("folder"), true, &found), [0]);
        assert_eq!(chosen(Some("other"), None, true, &found), [0; 0], "a name that is given counts");
        let first = [daemon("named-on-its-command-line", "unix:///a", 1)];
        assert_eq!(chosen(None, Some("folder"), false, &first), [0]);
    }

    #[test]
    fn the_engine_decides_between_projects_of_one_name() {
        let found = [daemon("p", "unix:///b", 7), daemon("p", "unix:///a", 8)];
        assert_eq!(chosen(None, Some("p"), false, &found), [1]);
        let found = [daemon("p", "unix:///b", 7), daemon("p", "unix:///c", 8)];
        assert_eq!(chosen(None, Some("p"), false, &found), [0, 1]);
    }
}
