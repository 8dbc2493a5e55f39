package dev.forebay.bench.streams;

import dev.forebay.bench.action.Delta;
import dev.forebay.bench.action.Event;
import dev.forebay.bench.action.Json;
import dev.forebay.bench.action.Profile;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/** The workload `action` on Kafka Streams. */
public final class ActionJob {
  private static final String STORE = "profiles";
  // More than one in the measure `growth`.
  private static final List<String> ENRICHED =
      IntStream.rangeClosed(1, Integer.parseInt(Streams.setting("copies")))
          .mapToObj(number -> number == 1 ? "enriched" : "enriched-" + number)
          .collect(Collectors.toList());

  private static final class ProfileProcessor implements Processor<byte[], byte[], byte[], byte[]> {
    private final Json json = new Json();
    private final Profile profile = new Profile();
    private final Delta delta = new Delta();
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<byte[], byte[]> store;

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
      this.context = context;
      store = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
      Event event = json.parse(record.value());
      if (event == null) {
        context.forward(record, "rejected");
        return;
      }
      profile.read(store.get(record.key()));
      if (!profile.apply(event)) return;
      store.put(record.key(), profile.write());
      try {
        String key = new String(record.key(), StandardCharsets.UTF_8);
        context.forward(record.withValue(json.write(delta.of(key, event, profile))), "updates");
        event.profile = profile.fields();
        Record<byte[], byte[]> enriched = record.withValue(json.write(event));
        for (String output : ENRICHED) context.forward(enriched, output);
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
    }
  }

  public static void main(String[] arguments) throws InterruptedException {
    String[] outputs = Stream.concat(ENRICHED.stream(), Stream.of("updates", "rejected")).toArray(String[]::new);
    Topology topology = Streams.topology(ProfileProcessor::new, outputs);
    Streams.run(topology.addStateStore(Streams.store(STORE), "work"));
  }
}
