//! A real OpenSSH server beside the servers of the embedded internet, on port 22 of every
//! address, and a client's folder that it lets in.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    process::{Running, must, patience},
    world::{USER, World},
};

/// The user that the server lets in; only it knows it.
pub const LOGIN: &str = "git";
const START: Duration = Duration::from_secs(30);

/// The server; it ends when dropped.
pub struct Ssh {
    client: PathBuf,
    _server: Running,
}

impl Ssh {
    /// Starts one. Errors: it is not installed (Debian: openssh-server).
    pub fn start(world: &World) -> Result<Self> {
        let server = Path::new("/usr/sbin/sshd");
        ensure!(
            server.exists(),
            "no OpenSSH server is installed; Debian: openssh-server"
        );
        let (folder, client) = (world.path("sshd"), world.path("ssh"));
        for path in [&folder, &client] {
            fs::create_dir(path)?;
        }
        key(&folder.join("host"))?;
        key(&client.join("key"))?;
        fs::copy(client.join("key.pub"), folder.join("authorized"))?;
        let mut users = File::create(folder.join("passwd"))?;
        users.write_all(&fs::read("/etc/passwd")?)?;
        writeln!(users, "{LOGIN}:*:{0}:{0}::/tmp:/bin/sh", USER - 1)?;
        let host = fs::read_to_string(folder.join("host.pub"))?;
        fs::write(client.join("known_hosts"), format!("* {host}"))?;
        for entry in [
            client.clone(),
            client.join("key"),
            client.join("known_hosts"),
        ] {
            chown(entry, Some(USER), Some(USER))?;
        }

        // In a mount namespace of its own, in which its user exists and its folder is there.
        let script = r#"
            mount --make-rprivate / && mount --bind "$1/passwd" /etc/passwd &&
            mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e -f /dev/null -p 22 -h "$1/host" \
                -o AuthorizedKeysFile="$1/authorized" -o StrictModes=no -o UsePAM=no \
                -o PidFile=none -o PasswordAuthentication=no
        "#;
        let mut command = world.internet_command("unshare");
        command.args(["--mount", "/bin/sh", "-c", script, "sshd"]);
        command.arg(&folder);
        let mut server = Running::start(command, Duration::from_secs(600))?;
        let end = Instant::now() + START * patience();
        while !server.stderr().contains("Server listening on 0.0.0.0") {
            ensure!(
                !server.ended()? && Instant::now() < end,
                "sshd does not start: {}",
                server.stderr()
            );
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Self {
            client,
            _server: server,
        })
    }

    /// A folder of the connector's user with `key` and `known_hosts`.
    pub fn client(&self) -> &Path {
        &self.client
    }

    /// A configuration of the client, whose lines follow those that every test needs.
    pub fn config(&self, lines: &str) -> Result<PathBuf> {
        let at = self.client.display();
        let text = format!(
            "Host *\nUser {LOGIN}\nBatchMode yes\nConnectTimeout 20\n\
             UserKnownHostsFile {at}/known_hosts\n{lines}\n"
        );
        let file = self.client.join("config");
        fs::write(&file, text)?;
        Ok(file)
    }
}

fn key(path: &Path) -> Result<()> {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
    keygen.arg(path);
    must(keygen, START).context("ssh-keygen; Debian: openssh-client")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// An `ssh-agent` of the caller's session, which runs as the connector's user outside every
/// confinement; it ends when dropped.
pub struct Agent {
    socket: PathBuf,
    _agent: Running,
}

impl Agent {
    /// Starts one and gives it a key.
    pub fn start(world: &World, key: &Path) -> Result<Self> {
        let folder = world.path("agent");
        fs::create_dir(&folder)?;
        chown(&folder, Some(USER), Some(USER))?;
        let socket = folder.join("agent.sock");
        let mut command = as_user(world, "ssh-agent");
        command.arg("-D").arg("-a").arg(&socket);
        let agent = Running::start(command, Duration::from_secs(600))?;
        let end = Instant::now() + START * patience();
        while !socket.exists() {
            ensure!(Instant::now() < end, "no ssh-agent: {}", agent.stderr());
            thread::sleep(Duration::from_millis(10));
        }
        let mut add = as_user(world, "ssh-add");
        add.env("SSH_AUTH_SOCK", &socket).arg("-q").arg(key);
        must(add, START)?;
        Ok(Self {
            socket,
            _agent: agent,
        })
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

fn as_user(world: &World, program: &str) -> Command {
    let mut command = world.command("setpriv");
    command
        .arg(format!("--reuid={USER}"))
        .arg(format!("--regid={USER}"))
        .args(["--clear-groups", "--"])
        .arg(program);
    command
}
