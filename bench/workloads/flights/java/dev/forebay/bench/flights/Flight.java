package dev.forebay.bench.flights;

import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.annotation.JsonPropertyOrder;
import java.time.OffsetDateTime;
import java.time.format.DateTimeParseException;
import java.util.List;
import java.util.regex.Pattern;

/** A record of the input; with `aircraft` it is one of the topics `enriched` and `delayed`. */
@JsonPropertyOrder({"id", "carrier", "flight", "tailnum", "origin", "dest", "dep_delay", "arr_delay", "air_time", "distance", "time", "sent_us", "aircraft"})
public final class Flight {
  private static final Pattern TAIL_NUMBER = Pattern.compile("[A-Z0-9]{3,8}");

  public String id;
  public String carrier;
  public Integer flight;
  public String tailnum;
  public String origin;
  public String dest;
  public Integer dep_delay;
  public Integer arr_delay;
  public Integer air_time;
  public Integer distance;
  public String time;
  public long sent_us;

  @JsonInclude(JsonInclude.Include.NON_NULL)
  public AircraftFields aircraft;

  /** What the aircraft adds to a flight. */
  @JsonPropertyOrder({"flights", "distance", "airports", "worst_delay"})
  public static final class AircraftFields {
    public int flights;
    public long distance;
    public List<String> airports;
    public int worst_delay;
  }

  boolean valid() {
    return id != null
        && tailnum != null
        && TAIL_NUMBER.matcher(tailnum).matches()
        && dep_delay != null
        && dep_delay >= -120
        && dep_delay <= 3000
        && dest != null
        && dest.length() >= 3
        && dest.length() <= 4
        && distance != null
        && distance >= 1
        && isTimestamp(time);
  }

  public boolean wasDelayed() {
    return dep_delay > 60;
  }

  private static boolean isTimestamp(String text) {
    if (text == null) return false;
    try {
      OffsetDateTime.parse(text);
      return true;
    } catch (DateTimeParseException malformed) {
      return false;
    }
  }
}
