//! Promise: a commit of which the worker cannot learn what came of it counts as what it was, and once: the journal tells, and nobody guesses.

#[path = "unknown_commit/proxy.rs"]
mod proxy;

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result, bail, ensure};
use forebay_e2e::flights::{Flights, records, replaced};
use forebay_e2e::job::{Line, Process};
use forebay_e2e::s3::S3;
use forebay_e2e::stack::Instance;
use forebay_e2e::{PATIENCE, in_folder, until};

use proxy::{Loss, Lost, Proxy};

/// The protocol's word for success.
const NO_ERROR: i16 = 0;

/// The port that `@SASL_PORT@` stands for, from the broker's first one: without SASL nobody takes it.
const PROXIED_PORT: u16 = 2;

/// Method: the broker commits, and its reply is lost; the client asks again and again and hears nothing until it gives up. What was committed must
/// not be done again.
#[test]
fn a_commit_whose_reply_is_lost_counts() -> Result<()> {
    lose_of_a_commit("lost-reply", Loss::Reply, |_, lost| {
        ensure!(matches!(lost, Lost::Reply { code: NO_ERROR }), "the broker has committed nothing: {lost:?}");
        Ok(())
    })
}

/// Method: the same, and it is the request that is lost. All of it must be done again. When that is committed the lost request arrives after all: the
/// broker must refuse it.
#[test]
fn a_commit_that_the_broker_never_heard_of_does_not_count_even_if_it_arrives_late() -> Result<()> {
    lose_of_a_commit("lost-request", Loss::Request, |proxy, lost| {
        let Lost::Request { frame } = lost else { bail!("the broker has been asked: {lost:?}") };
        let code = proxy.deliver(frame)?;
        ensure!(code != NO_ERROR, "the broker takes a commit of an incarnation that is over");
        Ok(())
    })
}

/// The job, behind a proxy, has worked off half of the records when the next commit is hit. It must take a new incarnation and work off the rest.
/// Once all is committed `judge` has its say, and then the oracle.
fn lose_of_a_commit(test: &str, loss: Loss, judge: impl FnOnce(&Proxy, &Lost) -> Result<()>) -> Result<()> {
    in_folder(test, |folder| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let kafka = led_by(test, listener.local_addr()?)?;
        let broker = kafka.broker()?;
        let mut proxied: SocketAddr = broker.address.parse().with_context(|| broker.address.clone())?;
        proxied.set_port(proxied.port() + PROXIED_PORT);
        let proxy = Proxy::start(listener, proxied)?;

        // Checkpoints lead to commits without records, which are not what is to be hit.
        let every_hour = |manifest| replaced(manifest, "interval: 30s", "interval: 1h");
        let flights = Flights::new(folder, broker, &S3::of_environment()?, every_hour)?;
        let records = records(60_000)?;
        let (known, rest) = records.split_at(records.len() / 2);
        flights.feed(known)?;
        let behind_proxy = flights.forebay.clone().with("FOREBAY_KAFKA", proxy.address()).with("RUST_LOG", "info,forebay_worker=debug");
        let job = behind_proxy.run("one", &flights.state_dir("one"), &[])?;
        wait_until_worked_off(&job, known.len())?;

        let before = job.lines().len();
        proxy.lose(loss);
        flights.feed(rest)?;
        let (whose, lost) = until("a commit is hit", PATIENCE, || {
            job.check_alive()?;
            Ok(proxy.lost())
        })?;
        let is_over = |line: &Line| line.message() == "incarnation is over; all shards are claimed again";
        let (over, next) = job.wait_for_after(before, "the end of the incarnation", is_over)?;
        ensure_of(&over, &whose, &job.lines()[..next])?;
        job.wait_until_metric("forebay_incarnations_over_total", 1.0)?;
        wait_until_worked_off(&job, records.len())?;
        judge(&proxy, &lost)?;
        job.stop()?;
        flights.check(&records, &["one"])
    })
}

/// A broker that has a second listener and calls it by the proxy's address: whoever comes by the proxy is led to nobody else.
fn led_by(test: &str, proxy: SocketAddr) -> Result<Instance> {
    let advertised = format!("PLAINTEXT://@HOST@:@PORT@,PROXIED://{proxy}");
    let settings = [
        ("listeners", "PLAINTEXT://@HOST@:@PORT@,CONTROLLER://127.0.0.1:@CONTROLLER_PORT@,PROXIED://@HOST@:@SASL_PORT@"),
        ("advertised.listeners", advertised.as_str()),
        ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT"),
    ];
    Instance::up_with("kafka", test, &settings)
}

/// Whether it is over for the commit that was hit and for nothing else, and there were records in that. `lines` end with the end of the incarnation.
fn ensure_of(over: &Line, transactional_id: &str, lines: &[Line]) -> Result<()> {
    let incarnation = over.field("incarnation").context("the end of an incarnation without its name")?;
    ensure!(transactional_id.ends_with(&format!(".{incarnation}")), "{transactional_id} was hit: {}", over.text);
    let reason = over.field("reason").unwrap_or_default();
    ensure!(reason.contains("commit a transaction"), "another call has failed: {}", over.text);
    let commit = lines.iter().rev().find(|line| line.message() == "commit begins").context("no commit")?;
    ensure!(commit.number("records").is_some_and(|records| records > 0), "nothing could be lost or doubled by it: {}", commit.text);
    Ok(())
}

fn wait_until_worked_off(job: &Process, records: usize) -> Result<()> {
    job.wait_until_metric("forebay_records_total", records as f64).map(drop)
}
