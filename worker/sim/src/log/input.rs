//! The input topic: what its readers are told, what is known of it by its name, and what may become of it. Whether that happens is for the world to say.

use forebay_engine::ids::Partition;
use forebay_engine::log::{LogError, TopicInfo};

use super::{InputBody, SimLog};

const NAME: &str = "input";

/// The id of the topic that is there at the beginning.
pub(super) const FIRST_ID: &str = "input-1";

/// A topic that can be the input.
#[derive(Debug)]
pub struct InputTopic {
    id: String,
    partitions: Vec<Vec<Option<InputBody>>>,
    starts: Vec<u64>,
}

impl InputTopic {
    /// One without records.
    pub fn new(id: String, partitions: u32) -> Self {
        Self { id, partitions: vec![Vec::new(); partitions as usize], starts: vec![0; partitions as usize] }
    }
}

impl SimLog {
    /// The input's part of [`forebay_engine::log::Log::describe`].
    pub fn describe_input(&self) -> TopicInfo {
        TopicInfo { name: NAME.to_owned(), id: self.input_id.clone(), partitions: self.inputs.len() as u32 }
    }

    /// From now on this topic has the input's name. Returns the one that had it.
    pub fn replace_input(&mut self, topic: InputTopic) -> InputTopic {
        InputTopic {
            id: std::mem::replace(&mut self.input_id, topic.id),
            partitions: std::mem::replace(&mut self.inputs, topic.partitions),
            starts: std::mem::replace(&mut self.input_starts, topic.starts),
        }
    }

    /// The input gets one more partition, and the outputs do not. Returns it.
    pub fn add_partition(&mut self) -> Partition {
        let added = Partition::new(self.inputs.len() as u32);
        self.inputs.push(Vec::new());
        self.input_starts.push(0);
        added
    }

    /// Whether an input has anything to say to a reader that stands at `at`: a record, or that it is in the wrong place.
    pub fn has_input(&self, partition: Partition, at: usize) -> bool {
        at != self.inputs[partition.get() as usize].len() || self.look_at_input(partition, at).is_err()
    }

    /// What a reader of an input is told that stands at `at`.
    pub fn look_at_input(&self, partition: Partition, at: usize) -> Result<(), LogError> {
        let number = partition.get();
        let (start, end) = (self.input_starts[number as usize], self.inputs[number as usize].len() as u64);
        let (action, topic, wanted) = ("read the input".to_owned(), NAME.to_owned(), at as u64);
        if wanted < start {
            return Err(LogError::Cut { action, topic, partition: number, wanted, start, way_out: "rewind the job".into() });
        }
        if wanted > end {
            return Err(LogError::Beyond { action, topic, partition: number, wanted, end });
        }
        Ok(())
    }
}
