//! Which shard should move so that the workers have alike to do. Pure.
//!
//! First their numbers: a worker that has come anew gets its part at once. Once all have been measured for a while, what they have to do decides. A shard that has moved
//! has to be measured anew, so of moves by load there is one a minute at most, each by what the last one has changed.

use std::collections::{BTreeMap, BTreeSet};

/// In thousandths of a core: what two workers must differ by at least, for less is not worth a move.
const DIFFERENCE_MIN: u32 = 200;
/// In percent of what the busier one has: what comes in is never quite the same.
const DIFFERENCE_PERCENT_MIN: u32 = 25;
/// In thousandths of a core: what the busier one of the two must have less to do by it.
const GAIN_MIN: u32 = 50;

/// A shard, whose it is, and whose it should be. `workers`: their pods and shards. `loads`: thousandths of a core, of the shards that have been measured.
pub(super) fn next<'a>(workers: &[(&'a str, &BTreeSet<u32>)], loads: &BTreeMap<u32, u32>) -> Option<(u32, &'a str, &'a str)> {
    let (fewest, few) = workers.iter().min_by_key(|(_, shards)| shards.len())?;
    let (_, most) = workers.iter().max_by_key(|(_, shards)| shards.len())?;
    let is_measured = |shard: &u32| loads.contains_key(shard);
    let all_measured = workers.iter().all(|(_, shards)| shards.iter().all(is_measured));
    let load = |shards: &BTreeSet<u32>| shards.iter().filter_map(|shard| loads.get(shard)).sum::<u32>();
    let (idlest, little) = workers.iter().map(|(pod, shards)| (*pod, load(shards))).min_by_key(|(_, load)| *load)?;
    let (busiest, shards) = *workers.iter().max_by_key(|(_, shards)| load(shards))?;
    let much = load(shards);
    // One of those with few is not new: they may be few because they are heavy, or what was moved to others is not measured yet.
    let by_load = few.iter().any(is_measured) && (!all_measured || much >= DIFFERENCE_MIN);
    if !by_load {
        let (from, most) = workers.iter().filter(|(_, shards)| shards.len() == most.len()).max_by_key(|(_, shards)| load(shards))?;
        let is_quiet = all_measured && much < DIFFERENCE_MIN;
        // The one with least to do then, and nobody gets so much by it that it would be given back by load.
        let lightest = || most.iter().copied().min_by_key(|shard| loads[shard]).filter(|shard| load(few) + loads[shard] < DIFFERENCE_MIN);
        let shard = if is_quiet { lightest()? } else { *most.last()? };
        return (most.len() >= few.len() + 2).then_some((shard, *from, *fewest));
    }
    if !all_measured || much - little < DIFFERENCE_MIN.max(much * DIFFERENCE_PERCENT_MIN / 100) {
        return None;
    }
    let after = |shard: &u32| (much - loads[shard]).max(little + loads[shard]);
    let shard = shards.iter().copied().min_by_key(after)?;
    (after(&shard) + GAIN_MIN <= much).then_some((shard, busiest, idlest))
}

#[cfg(test)]
mod tests {
    //! Method: workers are written down with their shards, each with its load or `None`, and the next move is compared.

    use super::*;

    const NEW: Option<u32> = None;

    /// The shards are numbered as they come. Returns the shard, from whom and to whom.
    fn check(workers: &[&[Option<u32>]], expected: Option<(u32, usize, usize)>) {
        let mut numbers = 0..;
        let names: Vec<String> = (0..workers.len()).map(|number| number.to_string()).collect();
        let (mut loads, mut sets) = (BTreeMap::new(), Vec::new());
        for shards in workers {
            let own: BTreeSet<u32> = numbers.by_ref().take(shards.len()).collect();
            loads.extend(own.iter().zip(*shards).filter_map(|(shard, load)| Some((*shard, (*load)?))));
            sets.push(own);
        }
        let all: Vec<(&str, &BTreeSet<u32>)> = names.iter().map(String::as_str).zip(&sets).collect();
        let number = |name: &str| name.parse::<usize>().unwrap();
        let found = next(&all, &loads).map(|(shard, from, to)| (shard, number(from), number(to)));
        assert_eq!(found, expected, "{workers:?}");
    }

    #[test]
    fn numbers_decide_as_long_as_nothing_is_measured_or_next_to_nothing_is_to_be_done() {
        check(&[&[NEW, NEW, NEW], &[NEW, NEW]], None);
        check(&[&[NEW, NEW, NEW], &[NEW]], Some((2, 0, 1)));
        check(&[&[Some(5), Some(0), Some(9)], &[Some(1)]], Some((1, 0, 1)));
        check(&[&[Some(150)], &[Some(0), Some(0), Some(0), Some(0), Some(60)]], Some((1, 1, 0)));
        check(&[&[Some(150)], &[Some(60), Some(60), Some(60)]], None);
        check(&[&[NEW, NEW, NEW], &[]], Some((2, 0, 1)));
        check(&[&[]], None);
        check(&[], None);
    }

    #[test]
    fn who_is_new_gets_its_part_at_once() {
        let busy = Some(300);
        check(&[&[busy, busy, busy, busy], &[]], Some((3, 0, 1)));
        check(&[&[busy, busy, busy], &[NEW]], Some((2, 0, 1)));
        check(&[&[busy, busy], &[NEW, NEW]], None);
    }

    #[test]
    fn the_busiest_gives_the_shard_that_evens_it_out_best_to_the_one_with_least_to_do() {
        check(&[&[Some(500), Some(250), Some(50)], &[Some(100), Some(100)], &[Some(50), Some(50)]], Some((1, 0, 2)));
        // Fewer shards may be more to do.
        check(&[&[Some(600), Some(300)], &[Some(50), Some(50), Some(50), Some(50)]], Some((1, 0, 1)));
        // What was moved is not measured yet.
        check(&[&[Some(600)], &[Some(50), Some(50), Some(50), Some(50), NEW]], None);
        check(&[&[Some(600)], &[Some(50), Some(50), Some(50), Some(50), Some(300)]], None);
    }

    #[test]
    fn what_would_gain_little_or_only_change_places_is_left() {
        check(&[&[Some(900)], &[Some(0)]], None);
        check(&[&[Some(900), Some(30)], &[Some(0), Some(0)]], None);
        check(&[&[Some(400), Some(400)], &[Some(400), Some(250)]], None);
        check(&[&[Some(100), Some(90)], &[Some(0), Some(0)]], None);
    }

    /// Method: shards with loads by chance, large and small, each worker with what it has by number; the moves are made until there is none.
    #[test]
    fn moves_come_to_an_end_and_even_out() {
        for (seed, below) in (0..1500_u64).zip([400, 60, 20].into_iter().cycle()) {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let loads: BTreeMap<u32, u32> = (0..24)
                .map(|shard| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // Of the small ones every other has nothing to do.
                    let has_nothing = below < DIFFERENCE_MIN && random & (1 << 32) == 0;
                    (shard, if has_nothing { 0 } else { (random >> 33) as u32 % below })
                })
                .collect();
            let mut workers: Vec<BTreeSet<u32>> = (0..3).map(|worker| (worker * 8..worker * 8 + 8).collect()).collect();
            let names = ["0", "1", "2"];
            let sums = |workers: &[BTreeSet<u32>]| -> Vec<u32> {
                workers.iter().map(|shards| shards.iter().map(|shard| loads[shard]).sum()).collect()
            };
            let mut moves = 0;
            loop {
                let all: Vec<(&str, &BTreeSet<u32>)> = names.into_iter().zip(&workers).collect();
                let Some((shard, from, to)) = next(&all, &loads) else { break };
                let before = *sums(&workers).iter().max().unwrap();
                let [from, to] = [from, to].map(|name| name.parse::<usize>().unwrap());
                assert!(workers[from].remove(&shard) && workers[to].insert(shard));
                // With little to do numbers count, and nobody gets so much that load does.
                let most = *sums(&workers).iter().max().unwrap();
                assert!(if before < DIFFERENCE_MIN { most < DIFFERENCE_MIN } else { most <= before }, "seed {seed}");
                moves += 1;
                assert!(moves <= 12, "seed {seed}: {workers:?}");
            }
            let sums = sums(&workers);
            let (most, least) = (*sums.iter().max().unwrap(), *sums.iter().min().unwrap());
            assert!(most - least < DIFFERENCE_MIN.max(most * DIFFERENCE_PERCENT_MIN / 100), "seed {seed}: {sums:?}");
        }
    }
}
