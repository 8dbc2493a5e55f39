package dev.forebay.bench.action;

import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;

/** The workload's records as JSON. */
public final class Json {
  private final ObjectReader events;
  private final ObjectWriter enriched;
  private final ObjectWriter deltas;

  public Json() {
    ObjectMapper mapper = new ObjectMapper().configure(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES, false);
    events = mapper.readerFor(Event.class);
    enriched = mapper.writerFor(Event.class);
    deltas = mapper.writerFor(Delta.class);
  }

  /** Null when it is no valid event. */
  public Event parse(byte[] value) {
    try {
      Event event = events.readValue(value);
      return event.isValid() ? event : null;
    } catch (IOException malformed) {
      return null;
    }
  }

  public byte[] write(Event event) throws IOException {
    return enriched.writeValueAsBytes(event);
  }

  public byte[] write(Delta delta) throws IOException {
    return deltas.writeValueAsBytes(delta);
  }
}
