package dev.forebay.bench.streams;

import dev.forebay.bench.transform.Event;
import dev.forebay.bench.transform.Json;
import dev.forebay.bench.transform.Mapped;
import java.io.IOException;
import java.io.UncheckedIOException;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;

/** The workload `transform` on Kafka Streams. */
public final class TransformJob {
  private static final class MappingProcessor implements Processor<byte[], byte[], byte[], byte[]> {
    private final Json json = new Json();
    private final Mapped mapped = new Mapped();
    private ProcessorContext<byte[], byte[]> context;

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
      this.context = context;
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
      Event event = json.parse(record.value());
      if (event == null) {
        context.forward(record, "rejected");
        return;
      }
      String output = mapped.of(event).output();
      if (output == null) return;
      try {
        context.forward(record.withValue(json.write(mapped)), output);
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
    }
  }

  public static void main(String[] arguments) throws InterruptedException {
    Streams.run(Streams.topology(MappingProcessor::new, "browsing", "carts", "orders", "accounts", "rejected"));
  }
}
