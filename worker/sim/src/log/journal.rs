//! The journal topic: what is known of it by its name, and that another one may come to have that name.

use forebay_engine::log::TopicInfo;

use super::{PartitionLog, SimLog};

/// A topic that can be the journal.
#[derive(Debug)]
pub struct JournalTopic {
    pub(super) id: String,
    pub(super) partitions: Vec<PartitionLog<Vec<u8>>>,
}

impl JournalTopic {
    /// One without records.
    pub fn new(id: String, shards: u32) -> Self {
        Self { id, partitions: (0..shards).map(|_| PartitionLog::default()).collect() }
    }
}

impl SimLog {
    /// The journal's part of [`forebay_engine::log::Log::describe`].
    pub fn describe_journal(&self) -> TopicInfo {
        TopicInfo { name: "journal".to_owned(), id: self.journal_id.clone(), partitions: self.journals.len() as u32 }
    }

    /// From now on this topic has the journal's name. Returns the one that had it. No transaction may be under way.
    pub fn replace_journal(&mut self, topic: JournalTopic) -> JournalTopic {
        JournalTopic {
            id: std::mem::replace(&mut self.journal_id, topic.id),
            partitions: std::mem::replace(&mut self.journals, topic.partitions),
        }
    }
}
