//! Servers of a test's own, which it may kill: instances of `e2e/stack/stack`.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::kafka::Broker;
use crate::s3::S3;
use crate::{PATIENCE, until};

/// One server; dropping it stops it and deletes its data.
pub struct Instance {
    kind: &'static str,
    name: String,
    environment: BTreeMap<String, String>,
}

impl Instance {
    /// Starts a server and waits until it is ready. `kind` is one of `stack help`.
    pub fn up(kind: &'static str, test: &str) -> Result<Self> {
        let mut instance = Self { kind, name: crate::unique(test), environment: BTreeMap::new() };
        instance.start()?;
        Ok(instance)
    }

    /// The same, a broker, with these settings over those that brokers have in tests. It keeps them when it is started again.
    pub fn up_with(kind: &'static str, test: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let mut instance = Self { kind, name: crate::unique(test), environment: BTreeMap::new() };
        instance.start_with(settings)?;
        Ok(instance)
    }

    /// Starts it again, on its data and its port; of a cluster, the nodes that do not run.
    pub fn start(&mut self) -> Result<()> {
        self.come_up(&[])
    }

    /// The same, a broker, with these settings from now on, in place of those that it was given before.
    pub fn start_with(&mut self, settings: &[(&str, &str)]) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new().context("make a file of settings")?;
        for (name, value) in settings {
            writeln!(file, "{name}={value}")?;
        }
        let path = file.path().to_string_lossy();
        self.come_up(&["--properties", &path])
    }

    /// Ends it at once, by SIGKILL, and waits until nobody answers at its address: the kernel closes a dead process's sockets a moment later.
    pub fn kill(&self) -> Result<()> {
        self.stack("kill")?;
        let names = ["FOREBAY_TEST_KAFKA", "FOREBAY_TEST_KAFKA_SECURE", "FOREBAY_TEST_S3"];
        let address = names.iter().find_map(|name| self.environment.get(*name));
        wait_until_gone(address.context("it was never up")?.trim_start_matches("http://"))
    }

    /// The same of one node of `kafka-three`, by its number, which is the broker's id too.
    pub fn kill_node(&self, node: i32) -> Result<()> {
        self.stack_with("kill", &[&node.to_string()])?;
        let addresses = self.get("FOREBAY_TEST_KAFKA_THREE")?.split(',');
        let address = usize::try_from(node - 1).ok().and_then(|index| addresses.clone().nth(index));
        wait_until_gone(address.with_context(|| format!("there is no node {node}"))?)
    }

    /// Freezes it by SIGSTOP: the kernel still takes connections and requests for it, and nobody answers. Until what is returned is dropped.
    pub fn freeze(&self) -> Result<Frozen> {
        self.freeze_node(1)
    }

    /// The same of one node of `kafka-three`, by its number. All of them must be running.
    pub fn freeze_node(&self, node: i32) -> Result<Frozen> {
        let status = self.stack("status")?;
        let index = usize::try_from(node - 1)?;
        let pid = status.split_once("pid ").and_then(|(_, rest)| rest.split_whitespace().nth(index)?.parse().ok());
        let frozen = Frozen { pid: pid.with_context(|| format!("no pid in: {status}"))? };
        frozen.signal("STOP")?;
        Ok(frozen)
    }

    /// A client of this broker; of a secure one, by the listener that may do everything; of three, by all.
    pub fn broker(&self) -> Result<Broker> {
        Broker::at(self.get(match self.kind {
            "kafka-secure" => "FOREBAY_TEST_KAFKA_SECURE",
            "kafka-three" => "FOREBAY_TEST_KAFKA_THREE",
            _ => "FOREBAY_TEST_KAFKA",
        })?)
    }

    /// Runs lines of shell that call Kafka's own tools, `kafka-acls.sh` and the like, as documents show them. `$BROKERS` is this broker.
    pub fn kafka_shell(&self, lines: &str) -> Result<()> {
        let stack = crate::repository().join("e2e/stack/stack");
        let tools = ["kafka-acls.sh", "kafka-topics.sh", "kafka-configs.sh", "kafka-consumer-groups.sh"];
        let functions = tools.map(|tool| format!("{tool}() {{ '{}' tool {tool} \"$@\"; }}\n", stack.display())).concat();
        let script = format!("set -euo pipefail\n{functions}{lines}");
        let output = Command::new("bash").args(["-c", &script]).env("BROKERS", self.broker()?.address).output().context("run bash")?;
        ensure!(output.status.success(), "{lines}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// A client of this S3 server.
    pub fn s3(&self) -> Result<S3> {
        S3::at(self.get("FOREBAY_TEST_S3")?, self.get("FOREBAY_TEST_S3_ACCESS_KEY")?, self.get("FOREBAY_TEST_S3_SECRET_KEY")?)
    }

    /// One of the values that `stack up` printed.
    pub fn get(&self, name: &str) -> Result<&str> {
        self.environment.get(name).map(String::as_str).with_context(|| format!("{}/{} said no {name}", self.kind, self.name))
    }

    fn come_up(&mut self, options: &[&str]) -> Result<()> {
        let printed = self.stack_with("up", options)?;
        let pairs = printed.lines().filter_map(|line| line.split_once('='));
        self.environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(())
    }

    fn stack(&self, command: &str) -> Result<String> {
        self.stack_with(command, &[])
    }

    fn stack_with(&self, command: &str, options: &[&str]) -> Result<String> {
        let stack = crate::repository().join("e2e/stack/stack");
        let output = Command::new(&stack).args([command, self.kind, &self.name]).args(options).output();
        let output = output.with_context(|| format!("run {}", stack.display()))?;
        ensure!(output.status.success(), "stack {command} {} {}: {}", self.kind, self.name, String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn wait_until_gone(address: &str) -> Result<()> {
    until(&format!("nobody listens at {address}"), PATIENCE, || Ok(TcpStream::connect(address).is_err().then_some(())))
}

/// A server that does not answer.
pub struct Frozen {
    pid: u32,
}

impl Frozen {
    fn signal(&self, name: &str) -> Result<()> {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.pid)).status()?;
        ensure!(sent.success(), "send SIG{name} to {}", self.pid);
        Ok(())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = self.signal("CONT") {
            eprintln!("{error:#}");
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Err(error) = self.stack("kill").and_then(|_| self.stack("remove")) {
            eprintln!("{error:#}");
        }
    }
}
