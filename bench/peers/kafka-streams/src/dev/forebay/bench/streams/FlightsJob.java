package dev.forebay.bench.streams;

import dev.forebay.bench.flights.Aircraft;
import dev.forebay.bench.flights.Flight;
import dev.forebay.bench.flights.Json;
import java.io.IOException;
import java.io.UncheckedIOException;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/** The workload `flights` on Kafka Streams. */
public final class FlightsJob {
  private static final String STORE = "aircraft";

  private static final class AircraftProcessor implements Processor<byte[], byte[], byte[], byte[]> {
    private final Json json = new Json();
    private final Aircraft aircraft = new Aircraft();
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<byte[], byte[]> store;

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
      this.context = context;
      store = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
      Flight flight = json.parse(record.value());
      if (flight == null) {
        context.forward(record, "dead");
        return;
      }
      aircraft.read(store.get(record.key()));
      if (!aircraft.apply(flight)) return;
      store.put(record.key(), aircraft.write());
      flight.aircraft = aircraft.fields();
      try {
        context.forward(record.withValue(json.write(aircraft.delta())), "updates");
        Record<byte[], byte[]> enriched = record.withValue(json.write(flight));
        context.forward(enriched, "enriched");
        if (flight.wasDelayed()) context.forward(enriched, "delayed");
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
    }
  }

  public static void main(String[] arguments) throws InterruptedException {
    Topology topology = Streams.topology(AircraftProcessor::new, "enriched", "updates", "delayed", "dead");
    Streams.run(topology.addStateStore(Streams.store(STORE), "work"));
  }
}
