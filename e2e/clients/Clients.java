// What Java's HTTP clients meet at a URL whose app sleeps: all at once, one line for each client and kind of request.
//   java Clients.java BASE-URL   prints CLIENT<TAB>VERSION<TAB>KIND<TAB>WHAT HAPPENED
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;

class Clients {
  static final String BODY = "0123456789";

  public static void main(String[] arguments) throws Exception {
    String base = arguments[0];
    var pool = Executors.newCachedThreadPool();
    pool.invokeAll(List.of(
        attempt("Java HttpClient, as it comes", "GET", () -> ofClient(base, HttpClient.Redirect.NEVER, false)),
        attempt("Java HttpClient", "GET", () -> ofClient(base, HttpClient.Redirect.NORMAL, false)),
        attempt("Java HttpClient", "POST", () -> ofClient(base, HttpClient.Redirect.NORMAL, true)),
        attempt("Java HttpURLConnection", "GET", () -> ofConnection(base, false)),
        attempt("Java HttpURLConnection", "POST", () -> ofConnection(base, true))));
    System.exit(0);
  }

  static Callable<Void> attempt(String client, String kind, Callable<String> act) {
    return () -> {
      String happened;
      try {
        happened = act.call();
      } catch (Exception error) {
        happened = error.getClass().getSimpleName();
      }
      System.out.println(String.join("\t", client, System.getProperty("java.version"), kind, happened));
      return null;
    };
  }

  static String ofClient(String base, HttpClient.Redirect redirect, boolean post) throws Exception {
    var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).followRedirects(redirect).build();
    var request = HttpRequest.newBuilder(URI.create(base + "/java"));
    if (post) {
      request.POST(HttpRequest.BodyPublishers.ofString(BODY));
    }
    var answer = client.send(request.build(), BodyHandlers.ofString());
    return app(answer.statusCode(), answer.body());
  }

  static String ofConnection(String base, boolean post) throws Exception {
    var connection = (HttpURLConnection) new URL(base + "/java").openConnection();
    if (post) {
      connection.setDoOutput(true);
      connection.getOutputStream().write(BODY.getBytes());
    }
    int status = connection.getResponseCode();
    var stream = status < 400 ? connection.getInputStream() : connection.getErrorStream();
    return app(status, stream == null ? "" : new String(stream.readAllBytes()));
  }

  // The app's own answer, with how much of the body it got.
  static String app(int status, String text) {
    if (!text.contains("pod=")) {
      return status + ", not the app";
    }
    String method = text.replaceAll("(?s).*method=(\\S+).*", "$1"), bytes = text.replaceAll("(?s).*bytes=(\\d+).*", "$1");
    return status + ", " + method + " of " + bytes + " bytes";
  }
}
