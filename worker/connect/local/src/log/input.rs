//! Reading partitions of the embedded log, one batch of each in memory.

use std::time::Duration;

use forebay_engine::ids::{InputId, Offset, Partition};
use forebay_engine::log::{Each, InputPosition, InputProgress, InputReader, LogError};
use forebay_engine::record::InputRecord;

use crate::disk::{self, LogFolder, NO_PANIC, State, TopicNumber, take_record};

/// A reader of some partitions.
pub struct LocalInput {
    folder: LogFolder,
    cursors: Vec<Cursor>,
    /// Whose turn it is to be first, so that one busy partition does not hold up the others.
    turn: usize,
}

impl LocalInput {
    /// A reader at these positions; their inputs are indexes into `topics`. Whether the positions are there is seen by `poll`.
    pub(crate) fn open(folder: &LogFolder, topics: &[String], positions: &[InputPosition]) -> Result<Self, LogError> {
        let mut cursors = Vec::with_capacity(positions.len());
        for position in positions {
            let topic = &topics[usize::from(position.input.get())];
            let action = format!("read {topic}");
            let mut cursor = Cursor::new(folder, topic, position.partition.get(), position.next.get(), action, WAY_OUT)?;
            cursor.input = position.input;
            cursors.push(cursor);
        }
        Ok(Self { folder: folder.clone(), cursors, turn: 0 })
    }

    /// Waits until there is something to read. `Err` when a position is not there any more.
    fn await_records(&mut self, wait: Duration) -> Result<(), LogError> {
        let state = self.folder.state();
        let idle = |state: &mut State| self.cursors.iter().all(|cursor| cursor.is_idle(state));
        let (state, _) = self.folder.news().wait_timeout_while(state, wait, idle).expect(NO_PANIC);
        for cursor in &mut self.cursors {
            cursor.refresh(&state)?;
        }
        Ok(())
    }
}

impl InputReader for LocalInput {
    fn poll_while(&mut self, wait: Duration, limit: usize, each: Each<'_>) -> Result<usize, LogError> {
        self.await_records(wait)?;
        let count = self.cursors.len();
        let share = (limit / count.max(1)).max(1);
        let (mut taken, mut stop) = (0, false);
        loop {
            let before = taken;
            for at in 0..count {
                let cursor = &mut self.cursors[(self.turn + at) % count];
                let most = if stop { 0 } else { share.min(limit - taken) };
                taken += cursor.take(&self.folder, most, &mut |record| {
                    let flow = each(record);
                    stop |= flow.is_break();
                    flow
                })?;
            }
            if taken == before || taken == limit || stop {
                self.turn = (self.turn + 1) % count.max(1);
                return Ok(taken);
            }
        }
    }

    fn progress(&mut self) -> Vec<InputProgress> {
        let state = self.folder.state();
        let progress = self.cursors.iter_mut().map(|cursor| {
            // The end of a partition that is gone stays as it was last seen; `poll` says that it is gone.
            cursor.end = cursor.bounds(&state).map_or(cursor.end, |(_, end)| end);
            let position =
                InputPosition { input: cursor.input, partition: Partition::new(cursor.partition), next: Offset::new(cursor.next) };
            InputProgress { position, end: Offset::new(cursor.end) }
        });
        progress.collect()
    }
}

/// A place in one partition, and the batch around it.
pub(crate) struct Cursor {
    input: InputId,
    topic: String,
    number: TopicNumber,
    partition: u32,
    next: u64,
    /// The partition's end as last seen.
    end: u64,
    /// The records of a batch; those before `at` were handed out.
    records: Vec<u8>,
    at: usize,
    /// Behind the last record of `records`.
    batch_end: u64,
    /// What errors say was attempted, and what can be done when records are gone.
    action: String,
    way_out: &'static str,
}

impl Cursor {
    /// A cursor at `next`. `Missing` when there is no such partition.
    pub(crate) fn new(
        folder: &LogFolder,
        topic: &str,
        partition: u32,
        next: u64,
        action: String,
        way_out: &'static str,
    ) -> Result<Self, LogError> {
        let state = folder.state();
        let Some((number, known)) = state.topic(topic) else { return Err(disk::missing_topic(action, topic)) };
        if partition as usize >= known.partitions.len() {
            return Err(disk::missing_partition(&action, topic, partition));
        }
        let (input, topic) = (InputId::new(0), topic.to_owned());
        Ok(Self { input, topic, number, partition, next, end: 0, records: Vec::new(), at: 0, batch_end: 0, action, way_out })
    }

    /// The offset of the next record.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Learns and returns where the partition starts and ends. `Cut`, `Beyond` or `Missing` when the next record is not there any more and
    /// will not come.
    pub(crate) fn refresh(&mut self, state: &State) -> Result<(u64, u64), LogError> {
        let (action, topic, partition, wanted) = (self.action.clone(), self.topic.clone(), self.partition, self.next);
        match self.bounds(state) {
            None => Err(LogError::Missing {
                action,
                what: format!("topic {topic}, as it was when reading began,"),
                way_out: "it was deleted; start a new job, or put the records back and restore from a savepoint".to_owned(),
            }),
            Some((start, _)) if wanted < start => {
                Err(LogError::Cut { action, topic, partition, wanted, start, way_out: self.way_out.to_owned() })
            }
            Some((_, end)) if wanted > end => Err(LogError::Beyond { action, topic, partition, wanted, end }),
            Some((start, end)) => {
                self.end = end;
                Ok((start, end))
            }
        }
    }

    /// Hands at most `limit` records of one batch to `each`, until it asks for a break, and returns how many: none only at the end as last
    /// seen, or for a limit of none.
    pub(crate) fn take(&mut self, folder: &LogFolder, limit: usize, each: Each<'_>) -> Result<usize, LogError> {
        if limit == 0 || self.next >= self.end {
            return Ok(0);
        }
        if self.next >= self.batch_end {
            self.load(folder)?;
        }
        let mut rest = &self.records[self.at..];
        let mut headers = Vec::new();
        let mut taken = 0;
        while taken < limit && self.next < self.batch_end {
            let parts = take_record(&mut rest, &mut headers).map_err(|error| self.unreadable(&error.to_string()))?;
            let flow = each(&InputRecord {
                input: self.input,
                partition: Partition::new(self.partition),
                offset: Offset::new(self.next),
                timestamp: parts.timestamp,
                key: parts.key,
                value: parts.value,
                headers: &headers,
            });
            self.next += 1;
            taken += 1;
            if flow.is_break() {
                break;
            }
        }
        self.at = self.records.len() - rest.len();
        Ok(taken)
    }

    /// Reads the batch around the next record.
    fn load(&mut self, folder: &LogFolder) -> Result<(), LogError> {
        let place = {
            let state = folder.state();
            self.refresh(&state)?;
            let topic = state.topic_numbered(self.number);
            let index = topic.and_then(|topic| topic.partitions.get(self.partition as usize));
            index.and_then(|index| index.batch(self.next)).cloned().expect("there is a batch around every offset between start and end")
        };
        // Should anything fail, the batch counts as not loaded.
        self.batch_end = 0;
        folder.read_batch(&place, &mut self.records).map_err(|reason| self.unreadable(&reason))?;
        let (mut rest, mut headers) = (self.records.as_slice(), Vec::new());
        for _ in place.base..self.next {
            take_record(&mut rest, &mut headers).map_err(|error| self.unreadable(&error.to_string()))?;
        }
        self.at = self.records.len() - rest.len();
        self.batch_end = place.end();
        Ok(())
    }

    /// Nothing to read, and nothing wrong.
    fn is_idle(&self, state: &State) -> bool {
        self.bounds(state).is_some_and(|(start, end)| self.next == end && self.next >= start)
    }

    fn bounds(&self, state: &State) -> Option<(u64, u64)> {
        let index = state.topic_numbered(self.number)?.partitions.get(self.partition as usize)?;
        Some((index.start, index.next))
    }

    fn unreadable(&self, reason: &str) -> LogError {
        LogError::Unavailable {
            action: self.action.clone(),
            reason: format!("{}-{} at offset {}: {reason}", self.topic, self.partition, self.next),
        }
    }
}

const WAY_OUT: &str = "the records were deleted before they were read: start a new job at `earliest`, or go on from a newer savepoint";
