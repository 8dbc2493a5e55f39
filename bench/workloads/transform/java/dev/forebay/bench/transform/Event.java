package dev.forebay.bench.transform;

/** A record of the input. */
public final class Event {
  public String tenant;
  public String user;
  public String event_id;
  public Long ts;
  public long sent_us;
  public String type;
  public Attributes attrs;
  public Identifiers identifiers;

  public static final class Attributes {
    public String page;
    public String referrer;
    public Double amount;
    public String currency;
    public String sku;
    public String campaign;
  }

  public static final class Identifiers {
    public String email;
    public String device;
  }

  public boolean isValid() {
    return tenant != null && user != null && event_id != null && ts != null && type != null && attrs != null
        && attrs.amount != null && attrs.referrer != null && attrs.campaign != null && identifiers != null
        && identifiers.email != null;
  }
}
