//! What is executed is what was reviewed: ways of changing it between the review and the start.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context as _, Result, ensure};
use egress_tests::{programs, world::World};
use serde_json::Value;

const NOBODY: u32 = 65534;

/// A program with a dependency, as it was reviewed, its interpreter and its policy.
struct App {
    /// Folder of everything; the program is in `app` below it.
    top: PathBuf,
    policy: PathBuf,
    /// A folder of the connector's user: home and working directory.
    home: PathBuf,
}

const MAIN: &str = "import os, sys\n\
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), 'lib'))\n\
    import helper\n\
    print('ran', helper.WORD)\n";

impl App {
    fn new(world: &World) -> Result<Self> {
        let top = world.path("top");
        let app = top.join("app");
        fs::create_dir_all(app.join("lib"))?;
        fs::create_dir_all(top.join("bin"))?;
        fs::write(app.join("main.py"), MAIN)?;
        fs::write(app.join("lib/helper.py"), "WORD = 'reviewed'\n")?;
        fs::write(app.join("lock.json"), "{}")?;
        symlink("lib/helper.py", app.join("link.py"))?;
        let python = fs::canonicalize("/usr/bin/python3")?;
        let name = python.file_name().context("a name")?;
        fs::copy(&python, top.join("bin").join(name))?;
        symlink(name, top.join("bin/python"))?;
        let home = world.path("home");
        fs::create_dir(&home)?;
        chown(&home, Some(NOBODY), Some(NOBODY))?;
        let policy = world.path("policy.yaml");
        let app = Self { top, policy, home };
        app.review(
            world,
            &[&app.python(), &app.path("app/main.py")],
            &["app", "bin"],
        )?;
        Ok(app)
    }

    fn path(&self, name: &str) -> String {
        self.top.join(name).display().to_string()
    }

    fn python(&self) -> String {
        let entries = fs::read_dir(self.top.join("bin"))
            .into_iter()
            .flatten()
            .flatten();
        let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let name = names.find(|name| name.starts_with("python3"));
        self.path(&format!("bin/{}", name.unwrap_or_default()))
    }

    /// Writes the policy with the pins that `egress-agent pin` computes.
    fn review(&self, world: &World, command: &[&str], pinned: &[&str]) -> Result<()> {
        let run = serde_json::to_string(command)?;
        let base = format!("version: 1\nconnector: pinned\nrun:\n  command: {run}\n");
        fs::write(&self.policy, &base)?;
        let pins = self.pins(world, pinned)?;
        fs::write(&self.policy, base + &pins)?;
        Ok(())
    }

    fn pins(&self, world: &World, pinned: &[&str]) -> Result<String> {
        let policy = self.policy.display().to_string();
        let paths: Vec<String> = pinned.iter().map(|name| self.path(name)).collect();
        let mut words = vec!["pin", &policy, "--write-list"];
        words.extend(paths.iter().map(String::as_str));
        let output = world.agent_command(&words)?.output()?;
        Ok(String::from_utf8(output.stdout)?)
    }

    fn start(&self, world: &World, env: &[(&str, &str)], words: &[&str]) -> Result<Output> {
        let home = self.home.display().to_string();
        let (mut command, _) = world
            .agent("")
            .env("HOME", &home)
            .command(&self.policy, words)?;
        // What the world's clients need to trust its authority would bring in code.
        command.env_remove("NODE_PATH").env_remove("PYTHONPATH");
        command.envs(env.iter().copied());
        command.output().context("a start")
    }
}

fn text(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&all).into_owned()
}

/// Nothing was started, and the reason is given.
fn ensure_refused(what: &str, output: &Output, why: &str) -> Result<()> {
    let text = text(output);
    ensure!(
        output.status.code() == Some(125),
        "{what} was not refused: {text}"
    );
    ensure!(!text.contains("ran "), "{what}: it ran: {text}");
    ensure!(
        text.contains(why),
        "{what}: another reason than {why}: {text}"
    );
    Ok(())
}

type Change = fn(&App) -> Result<()>;

/// Changes on the disk, each with what the refusal says.
const CHANGES: [(&str, &str, Change); 26] = [
    ("a file's bytes", "changed: main.py", |app| {
        rewrite(app, "app/main.py", "print('ran evil')\n")
    }),
    (
        "bytes of the same length and time",
        "changed: lib/helper.py",
        |app| {
            let path = app.top.join("app/lib/helper.py");
            let times = fs::metadata(&path)?.modified()?;
            fs::write(&path, "WORD = 'reviewEd'\n")?;
            Ok(OpenOptions::new()
                .write(true)
                .open(&path)?
                .set_modified(times)?)
        },
    ),
    ("a new file", "new:", |app| {
        rewrite(app, "app/lib/sitecustomize.py", "print('ran evil')\n")
    }),
    ("a file that is gone", "gone:", |app| {
        Ok(fs::remove_file(app.top.join("app/lock.json"))?)
    }),
    ("the lock file", "changed:", |app| {
        rewrite(app, "app/lock.json", "{ }")
    }),
    ("a mode", "changed:", |app| {
        mode(app, "app/lib/helper.py", 0o755)
    }),
    ("a set-user-id bit", "changed:", |app| {
        mode(app, "app/lib/helper.py", 0o4644)
    }),
    ("a file that everybody can write", "everybody", |app| {
        mode(app, "app/lib/helper.py", 0o666)
    }),
    ("a folder that everybody can write", "everybody", |app| {
        mode(app, "app/lib", 0o777)
    }),
    ("a folder to which everybody can add", "everybody", |app| {
        mode(app, "app/lib", 0o1777)
    }),
    ("a file that root's group can write", "a group", |app| {
        mode(app, "app/lib/helper.py", 0o664)
    }),
    ("a folder above", "everybody", |app| mode(app, "", 0o777)),
    ("a file of the user's", "another user", |app| {
        give(app, "app/lib/helper.py")
    }),
    ("a folder of the user's", "another user", |app| {
        give(app, "app/lib")
    }),
    ("a folder above of the user's", "another user", |app| {
        give(app, "")
    }),
    ("a link in the place of a file", "link", |app| {
        let [file, evil] = [app.top.join("app/lib/helper.py"), app.home.join("evil.py")];
        fs::write(&evil, "WORD = 'evil'\n")?;
        fs::remove_file(&file)?;
        Ok(symlink(&evil, &file)?)
    }),
    ("a link that leads elsewhere", "changed:", |app| {
        relink(app, "app/link.py", "main.py")
    }),
    ("a link that leads out", "link", |app| {
        relink(app, "app/link.py", "/tmp/evil.py")
    }),
    ("a link that climbs out", "link", |app| {
        relink(app, "app/link.py", "lib/../../x.py")
    }),
    ("a link in the place of a folder", "", |app| {
        let [lib, away] = [app.top.join("app/lib"), app.home.join("lib")];
        fs::create_dir(&away)?;
        fs::write(away.join("helper.py"), "WORD = 'evil'\n")?;
        fs::remove_dir_all(&lib)?;
        Ok(symlink(&away, &lib)?)
    }),
    ("a folder of modules", "new:", |app| {
        fs::create_dir(app.top.join("app/node_modules"))?;
        rewrite(app, "app/node_modules/index.js", "evil")
    }),
    ("an empty folder", "new:", |app| {
        Ok(fs::create_dir(app.top.join("app/__pycache__"))?)
    }),
    ("a .pth file", "new:", |app| {
        rewrite(app, "app/lib/evil.pth", "import evil\n")
    }),
    ("two files changed places", "changed:", |app| {
        let [one, other, aside] =
            ["app/main.py", "app/lib/helper.py", "aside"].map(|name| app.top.join(name));
        fs::rename(&one, &aside)?;
        fs::rename(&other, &one)?;
        Ok(fs::rename(&aside, &other)?)
    }),
    ("the interpreter", "changed:", |app| {
        let mut bytes = fs::read(app.python())?;
        bytes.push(0);
        Ok(fs::write(app.python(), bytes)?)
    }),
    ("a pipe", "neither a file", |app| {
        let path = app.top.join("app/pipe");
        Ok(nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR)?)
    }),
];

fn rewrite(app: &App, name: &str, text: &str) -> Result<()> {
    Ok(fs::write(app.top.join(name), text)?)
}

fn mode(app: &App, name: &str, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(
        app.top.join(name),
        fs::Permissions::from_mode(mode),
    )?)
}

fn give(app: &App, name: &str) -> Result<()> {
    Ok(chown(app.top.join(name), Some(NOBODY), None)?)
}

fn relink(app: &App, name: &str, target: &str) -> Result<()> {
    let path = app.top.join(name);
    fs::remove_file(&path)?;
    Ok(symlink(target, path)?)
}

#[test]
fn nothing_that_was_changed_on_the_disk_is_started() -> Result<()> {
    let world = World::new()?;
    for (what, why, change) in CHANGES {
        let app = App::new(&world)?;
        let control = app.start(&world, &[], &[])?;
        ensure!(
            text(&control).contains("ran reviewed"),
            "the control failed: {}",
            text(&control)
        );
        change(&app)?;
        ensure_refused(what, &app.start(&world, &[], &[])?, why)?;
    }
    Ok(())
}

/// Who had a file open, or mapped, before root took it over can change it under the review.
#[test]
fn nothing_is_started_that_somebody_holds_open_for_writing() -> Result<()> {
    let world = World::new()?;
    let app = App::new(&world)?;
    let path = app.top.join("app/lib/helper.py");
    let held: File = OpenOptions::new().write(true).open(&path)?;
    ensure_refused(
        "an open file",
        &app.start(&world, &[], &[])?,
        "open for writing",
    )?;
    drop(held);
    let control = app.start(&world, &[], &[])?;
    ensure!(
        text(&control).contains("ran reviewed"),
        "the control failed: {}",
        text(&control)
    );
    Ok(())
}

#[test]
fn no_variable_brings_in_code() -> Result<()> {
    let world = World::new()?;
    let app = App::new(&world)?;
    let home = app.home.display().to_string();
    fs::write(app.home.join("helper.py"), "WORD = 'evil'\n")?;
    for name in [
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONSTARTUP",
        "PYTHONBREAKPOINT",
        "NODE_OPTIONS",
        "NODE_PATH",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_AUDIT",
        "npm_config_cache",
        "UV_CACHE_DIR",
        "BASH_ENV",
        "PERL5OPT",
        "RUBYOPT",
        "JAVA_TOOL_OPTIONS",
        "OPENSSL_CONF",
    ] {
        let output = app.start(&world, &[(name, &home)], &[])?;
        ensure_refused(name, &output, name)?;
    }
    let control = app.start(&world, &[("PYTHONUNBUFFERED", "1"), ("TOKEN", "x")], &[])?;
    ensure!(
        text(&control).contains("ran reviewed"),
        "the control failed: {}",
        text(&control)
    );
    Ok(())
}

#[test]
fn no_other_command_and_no_cache_is_started() -> Result<()> {
    let world = World::new()?;
    let app = App::new(&world)?;
    let [python, main] = [app.python(), app.path("app/main.py")];
    let other = ["/bin/sh", "-c", "echo ran evil"];
    ensure_refused(
        "another command",
        &app.start(&world, &[], &other)?,
        "another one",
    )?;
    let same = app.start(&world, &[], &[&python, &main])?;
    ensure!(
        text(&same).contains("ran reviewed"),
        "the control failed: {}",
        text(&same)
    );

    let evil = app.home.join("evil.py").display().to_string();
    fs::write(&evil, "print('ran evil')\n")?;
    for name in ["npx", "uvx", "deno", "bun"] {
        fs::copy("/bin/true", app.top.join("bin").join(name))?;
    }
    let [npx, uvx, deno, bun] =
        ["npx", "uvx", "deno", "bun"].map(|name| app.path(&format!("bin/{name}")));
    for (command, why) in [
        (vec![npx.as_str(), "--offline", "x@1.0.0"], "cache"),
        (vec![&uvx, "--offline", "x@1.0.0"], "cache"),
        (vec![&deno, "run", &main], "cache"),
        (vec![&bun, &main], "cache"),
        (vec![&python, "-m", "helper"], "caller's folder"),
        (vec![&python, &evil], "not pinned"),
        (vec![&python, "evil.py"], "caller's folder"),
        (
            vec![&python, "-u", "-W", "ignore", "evil.py"],
            "caller's folder",
        ),
    ] {
        app.review(&world, &command, &["app", "bin"])?;
        ensure_refused(&format!("{command:?}"), &app.start(&world, &[], &[])?, why)?;
    }
    let script = app.path("app/script");
    fs::write(&script, "#!/usr/bin/env python3\nprint('ran evil')\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    app.review(&world, &[&script], &["app", "bin"])?;
    ensure_refused(
        "a script for env",
        &app.start(&world, &[], &[])?,
        "is a script",
    )?;
    fs::write(&script, format!("#!{python} -u\nprint('ran reviewed')\n"))?;
    app.review(&world, &[&script], &["app", "bin"])?;
    let control = app.start(&world, &[], &[])?;
    ensure!(
        text(&control).contains("ran reviewed"),
        "the control failed: {}",
        text(&control)
    );
    let node = app.path("bin/node");
    fs::copy("/bin/true", &node)?;
    let policy = [&node, "--env-file-if-exists=/none"];
    app.review(&world, &policy, &["bin"])?;
    let text_of = fs::read_to_string(&app.policy)?;
    let home = app.home.display().to_string();
    let env = format!("  env: {{ set: {{ HOME: \"{home}\" }} }}\npin:");
    fs::write(&app.policy, text_of.replace("pin:", &env))?;
    let control = app.start(&world, &[], &[])?;
    ensure!(
        control.status.success(),
        "the control failed: {}",
        text(&control)
    );
    fs::create_dir(app.home.join(".node_modules"))?;
    ensure_refused(
        "modules at home",
        &app.start(&world, &[], &[])?,
        ".node_modules",
    )?;

    app.review(&world, &["/bin/sh", &main], &["app", "bin"])?;
    ensure_refused(
        "a program that is not pinned",
        &app.start(&world, &[], &[])?,
        "pin",
    )?;
    Ok(())
}

/// A user's own packages run at each start of Python; those of the caller's folder do not.
#[test]
fn packages_of_the_user_are_not_taken_in() -> Result<()> {
    let world = World::new()?;
    let app = App::new(&world)?;
    let version = app
        .python()
        .rsplit("python")
        .next()
        .unwrap_or_default()
        .to_owned();
    let site = app
        .home
        .join(format!(".local/lib/python{version}/site-packages"));
    fs::create_dir_all(&site)?;
    fs::write(
        site.join("evil.pth"),
        "import sys; sys.stdout.write('ran evil\\n')\n",
    )?;
    let home = app.home.display().to_string();
    let env = format!("  env: {{ pass: [PATH], set: {{ HOME: \"{home}\" }} }}\npin:");
    let policy = fs::read_to_string(&app.policy)?.replace("pin:", &env);
    fs::write(&app.policy, policy)?;
    let output = app.start(&world, &[], &[])?;
    ensure!(
        text(&output).contains("ran reviewed"),
        "the control failed: {}",
        text(&output)
    );
    ensure!(
        !text(&output).contains("evil"),
        "the user's packages were taken in: {}",
        text(&output)
    );
    // Without the pin they are.
    let policy = fs::read_to_string(&app.policy)?;
    let end = policy.find("pin:").context("pins")?;
    fs::write(&app.policy, policy.get(..end).unwrap_or_default())?;
    let output = app.start(&world, &[], &[])?;
    ensure!(
        text(&output).contains("evil"),
        "the way is none: {}",
        text(&output)
    );
    Ok(())
}

#[test]
fn root_and_what_the_user_owns_cannot_be_pinned() -> Result<()> {
    let world = World::new()?;
    let app = App::new(&world)?;
    let (mut command, _) = world
        .agent("")
        .user(Some("root"))
        .command(&app.policy, &[] as &[&str])?;
    ensure_refused("root", &command.output()?, "root")?;
    chown(app.top.join("app"), Some(NOBODY), None)?;
    let policy = app.policy.display().to_string();
    let output = world
        .agent_command(&["pin", &policy, "-o", "json"])?
        .output()?;
    ensure!(output.status.code() == Some(1), "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(
        report["ok"] == false && report["pins"][0]["fault"].is_string(),
        "{report}"
    );
    Ok(())
}

/// Without optimisation, and beside other tests: only that it is no matter of minutes.
#[test]
fn a_large_tree_takes_no_time() -> Result<()> {
    let top = tempfile::Builder::new().prefix("pin-").tempdir()?;
    for folder in 0..100 {
        let folder = top.path().join(format!("d{folder}"));
        fs::create_dir(&folder)?;
        for file in 0..100 {
            fs::write(folder.join(format!("f{file}.js")), "x".repeat(2_000))?;
        }
    }
    let policy = top.path().with_extension("yaml");
    fs::write(&policy, "version: 1\nconnector: a\n")?;
    let agent = programs::agent()?;
    let measure = |folder: &Path| -> Result<std::time::Duration> {
        let begun = std::time::Instant::now();
        let output = std::process::Command::new(&agent)
            .arg("pin")
            .arg(&policy)
            .arg(folder)
            .output()?;
        ensure!(text(&output).contains("sha256:"), "{}", text(&output));
        Ok(begun.elapsed())
    };
    let mut taken = Vec::new();
    for _ in 0..5 {
        taken.push(measure(top.path())?);
    }
    fs::remove_file(&policy)?;
    let best = taken.iter().min().context("a time")?;
    ensure!(best.as_secs() < 5, "{taken:?}");
    Ok(())
}
