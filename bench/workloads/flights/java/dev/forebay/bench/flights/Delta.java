package dev.forebay.bench.flights;

import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.annotation.JsonPropertyOrder;
import java.util.List;

/** What a flight changed in an aircraft, in the format of Forebay's deltas: applying it twice gives the same aircraft. */
@JsonPropertyOrder({"table", "key", "set", "addToSet"})
@JsonInclude(JsonInclude.Include.NON_NULL)
public final class Delta {
  public final String table = "aircraft";
  public String key;
  public final SetFields set = new SetFields();
  public AddedAirports addToSet;

  @JsonInclude(JsonInclude.Include.NON_NULL)
  @JsonPropertyOrder({"carrier", "last_airport", "last_seen", "flights", "distance", "worst_delay"})
  public static final class SetFields {
    public String carrier;
    public String last_airport;
    public String last_seen;
    public int flights;
    public long distance;
    public Integer worst_delay;
  }

  public static final class AddedAirports {
    public final List<String> airports;

    AddedAirports(String airport) {
      airports = List.of(airport);
    }
  }
}
