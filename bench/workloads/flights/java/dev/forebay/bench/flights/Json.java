package dev.forebay.bench.flights;

import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;

/** The workload's records as JSON. */
public final class Json {
  private final ObjectReader flights;
  private final ObjectWriter enriched;
  private final ObjectWriter deltas;

  public Json() {
    ObjectMapper mapper =
        new ObjectMapper()
            .configure(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES, false)
            .configure(DeserializationFeature.FAIL_ON_TRAILING_TOKENS, true);
    flights = mapper.readerFor(Flight.class);
    enriched = mapper.writerFor(Flight.class);
    deltas = mapper.writerFor(Delta.class);
  }

  /** Null when it is no valid flight. */
  public Flight parse(byte[] value) {
    try {
      Flight flight = flights.readValue(value);
      return flight.valid() ? flight : null;
    } catch (IOException malformed) {
      return null;
    }
  }

  public byte[] write(Flight flight) throws IOException {
    return enriched.writeValueAsBytes(flight);
  }

  public byte[] write(Delta delta) throws IOException {
    return deltas.writeValueAsBytes(delta);
  }
}
