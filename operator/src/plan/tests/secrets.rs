//! Method: secrets change under workers of one revision, and what is done about it is compared; then it is taken to its end in the toy.

use super::*;

fn stale(worker: Worker) -> Worker {
    let secrets = Secrets { changed: ["kafka".to_owned()].into(), missing: BTreeSet::new() };
    Worker { secrets, ..worker }
}

const WHY: &str = "it was started before this secret was changed: kafka";

#[test]
fn workers_with_the_secrets_of_before_go_one_by_one_and_only_when_another_one_does_well() {
    let olds = || vec![stale(worker(0, PodState::Ready, runs(1, &[0, 1]))), stale(worker(1, PodState::Ready, runs(1, &[2, 3])))];
    check(&fleet(2, olds()), &[make(2, "t1")]);
    let with = |new: Worker| fleet(2, [olds(), vec![new]].concat());
    // It does not come up: the secret may be wrong, and whoever runs goes on.
    let fails = || worker(2, PodState::Starting, Answer::Unheard(Duration::from_secs(9)));
    let trouble = Some(Trouble { reason: "Error".into(), message: "wrong password".into() });
    check(&with(Worker { restarts: 7, trouble, ..fails() }), &[]);
    // The secret was corrected: what failed with the wrong one has nothing to lose.
    check(&with(stale(fails())), &[delete(2, WHY)]);
    let mut does_well = with(worker(2, PodState::Ready, runs(2, &[3])));
    does_well.workers[1].answer = runs(2, &[2]);
    check(&does_well, &[delete(1, WHY)]);
    // One that cannot go on with what it has is not waited for.
    let mut ailing = fleet(2, olds());
    ailing.workers[0].trouble = Some(Trouble { reason: "Error".into(), message: "the password is no longer good".into() });
    check(&ailing, &[delete(0, WHY), make(2, "t1")]);
}

#[test]
fn a_job_that_is_scaled_down_meanwhile_does_not_wait_for_one_that_may_never_come_up() {
    let mut olds = vec![stale(worker(0, PodState::Ready, runs(1, &[0, 1, 2, 3])))];
    olds.extend([1, 2].map(|slot| stale(worker(slot, PodState::Ready, idle()))));
    let trouble = Some(Trouble { reason: "Error".into(), message: "wrong password".into() });
    let fails = Worker { restarts: 7, trouble, ..worker(3, PodState::Starting, Answer::Unheard(Duration::from_secs(9))) };
    let scaled_down = fleet(1, [olds, vec![fails]].concat());
    check(&scaled_down, &[delete(1, "1 workers are wanted"), delete(2, "1 workers are wanted")]);
}

#[test]
fn nobody_is_replaced_while_a_secret_is_missing_or_the_job_is_to_rest() {
    let mut missing = fleet(1, vec![stale(worker(0, PodState::Ready, runs(1, &[0, 1, 2, 3])))]);
    missing.workers[0].secrets.missing.insert("store".into());
    check(&missing, &[]);
    missing.workers[0].secrets.missing.clear();
    check(&missing, &[make(1, "t1")]);
    missing.replicas = 0;
    check(&missing, &[delete(0, "0 workers are wanted")]);
}

#[test]
fn a_change_comes_first_and_its_workers_have_the_secrets_of_now() {
    let workers = vec![stale(worker(0, PodState::Ready, runs(1, &[0, 1]))), stale(worker(1, PodState::Ready, runs(1, &[2, 3])))];
    let mut changed = Fleet { template: "t2".into(), ..fleet(2, workers) };
    changed.configs = configs(&[("t1", Standing::Good(1)), ("t2", Standing::Untried)]);
    changed.savepoints = [("t2".to_owned(), saved("t2", SavepointPhase::Completed))].into();
    check(&changed, &[make(2, "t2")]);
    changed.configs = configs(&[("t1", Standing::Good(1)), ("t2", Standing::Bad("it was bad".into()))]);
    check(&changed, &[make(2, "t1")]);
}

/// Method: the secrets change once, in a job of so many workers, which obey at once. In the end all pods are others, and at no time were there fewer than wanted.
#[test]
fn every_job_comes_to_rest_with_the_new_secrets() {
    for replicas in 1..=4 {
        let mut toy = fleet(replicas, Vec::new());
        let run = |toy: &mut Fleet| {
            for _ in 0..100 {
                let actions = plan(toy);
                if actions.is_empty() {
                    return;
                }
                obey(toy, actions);
                assert!(toy.workers.iter().any(|worker| !worker.is_stale()) || toy.workers.len() >= replicas as usize, "{toy:#?}");
            }
            panic!("no rest: {toy:#?}");
        };
        run(&mut toy);
        toy.workers = toy.workers.drain(..).map(stale).collect();
        run(&mut toy);
        assert!(toy.all_run() && toy.workers.len() == replicas as usize, "{toy:#?}");
        assert!(!toy.workers.iter().any(Worker::is_stale), "{toy:#?}");
    }
}
