// SPDX-License-Identifier: Apache-2.0
// SmtpProvider: one SMTP session with one message for each call().
//
//   1. The constructor validates the options.
//   2. mail_of() validates the request, and adds a Message-ID derived from the provider key.
//   3. Dialogue follows the session through libcurl's debug output: which reply answers the newest
//      command, and whether the final dot may have been sent. libcurl itself does not report
//      either.
//   4. outcome_of() derives phase and answer from the dialogue.
//
// Failure. Invalid options throw std::invalid_argument; everything else is an Outcome. Error texts
// contain no credentials. Thread-safe: only constant state is shared.
#include "outbox/smtp_provider.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include "client/effects/curl_request.h"
#include "client/effects/digest.h"
#include "common/hex.h"

namespace outbox {
inline namespace v1 {
namespace {

using effects::CurlRequest;

constexpr std::size_t message_id_digits = 32;
constexpr std::size_t queue_id_bytes_max = 200;

[[noreturn]] void reject_smtp_options(const std::string& what) {
  throw std::invalid_argument("SMTP provider: " + what);
}

// Whether the address can be placed between < and > without ending there, which would allow a
// command to be injected.
bool valid_address(std::string_view address) {
  const std::size_t at = address.rfind('@');
  return at != std::string_view::npos && at > 0 && at + 1 < address.size() &&
         !effects::has_control(address) &&
         address.find_first_of(" <>,;\"\\") == std::string_view::npos;
}

bool valid_domain(const std::string& domain) {
  return !domain.empty() && !effects::has_control(domain) &&
         domain.find_first_of(" <>@/?#%") == std::string::npos;
}

// Throws std::invalid_argument for options that cannot work.
SmtpOptions checked(SmtpOptions options) {
  const std::string origin = effects::origin_of(options.url);
  const bool tls = origin.starts_with("smtps://");
  if (!tls && !origin.starts_with("smtp://")) {
    reject_smtp_options(
        "url is not an smtp:// or smtps:// URL. HINT: use the form smtp://mail.example.com:587");
  }
  if (options.url.find_first_of("@?#;") != std::string::npos || effects::has_control(options.url)) {
    reject_smtp_options(
        "url has more than a host and a port. HINT: put credentials into username and password");
  }
  if (options.username.empty() != options.password.empty()) {
    reject_smtp_options("username or password is missing. HINT: set both or neither");
  }
  if (!options.username.empty() && !tls && !options.require_tls) {
    reject_smtp_options(
        "the password could be sent unencrypted. HINT: set require_tls, or use smtps://");
  }
  if (!options.from.empty() && !valid_address(options.from)) {
    reject_smtp_options("from is not an address. HINT: use the form shop@example.com");
  }
  if (!options.helo_name.empty() && !valid_domain(options.helo_name)) {
    reject_smtp_options("helo_name is not a host name. HINT: use the form app.example.com");
  }
  if (!options.message_id_domain.empty() && !valid_domain(options.message_id_domain)) {
    reject_smtp_options("message_id_domain is not a domain. HINT: use the form example.com");
  }
  // libcurl takes the EHLO name from the path.
  options.url = origin + "/" + options.helo_name;
  return options;
}

std::string trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  return begin == std::string_view::npos
             ? ""
             : std::string(text.substr(begin, text.find_last_not_of(" \t") + 1 - begin));
}

// Converts CR, LF and CRLF to CRLF: servers disagree on bare ones, and could see the end of the
// message in different places (SMTP smuggling).
std::string with_crlf(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 32);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') continue;
    if (text[i] == '\r' || text[i] == '\n') {
      out += "\r\n";
    } else {
      out += text[i];
    }
  }
  if (!out.ends_with("\r\n")) out += "\r\n";
  return out;
}

// Looks at the header fields only; names are compared without case.
bool has_message_id(std::string_view message) {
  constexpr std::string_view name = "message-id";
  const auto same = [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; };
  for (std::size_t at = 0; at < message.size() && message.substr(at, 2) != "\r\n";) {
    const std::string_view line = message.substr(at, message.find("\r\n", at) - at);
    const std::size_t end = line.find_first_of(": \t");
    if (end == name.size() && std::equal(name.begin(), name.end(), line.begin(),
                                         [&](char a, char b) { return same(b, a); })) {
      return true;
    }
    at += line.size() + 2;
  }
  return false;
}

// A message to send; or `fault`, if it cannot be sent.
struct MailMessage {
  std::string fault{};
  std::string from{};
  std::vector<std::string> to{};
  std::string message_id{};
  std::string text{};
};

// Validates the request and builds the message, Message-ID included.
MailMessage mail_of(const Request& request, const SmtpOptions& options) {
  MailMessage mail;
  const auto target = [&](const char* name) {
    return request.target.contains(name) ? request.target.at(name) : std::string();
  };
  mail.from = request.target.contains("from") ? trimmed(target("from")) : options.from;
  if (!valid_address(mail.from)) {
    return {"target from is not an address. HINT: use the form shop@example.com"};
  }
  const std::string to = target("to");
  for (std::size_t at = 0; at <= to.size();) {
    const std::size_t comma = std::min(to.find(',', at), to.size());
    mail.to.push_back(trimmed(std::string_view(to).substr(at, comma - at)));
    if (!valid_address(mail.to.back())) {
      return {
          "target to is not a list of addresses. HINT: use the form a@example.com, b@example.com"};
    }
    at = comma + 1;
  }
  if (request.provider_key.empty()) {
    return {"the provider key is empty. HINT: set it; the Message-ID is derived from it"};
  }
  mail.text = with_crlf(request.body);
  if (has_message_id(mail.text)) {
    return {"the message has a Message-ID. HINT: remove it; it is derived from the provider key"};
  }
  if (mail.text.starts_with(' ') || mail.text.starts_with('\t')) {
    return {
        "the message begins with white space, which would continue the Message-ID. HINT: begin "
        "with a header field"};
  }
  const std::string domain = options.message_id_domain.empty()
                                 ? mail.from.substr(mail.from.rfind('@') + 1)
                                 : options.message_id_domain;
  mail.message_id =
      "<" + common::hex(effects::sha256(request.provider_key)).substr(0, message_id_digits) + "@" +
      domain + ">";
  mail.text.insert(0, "Message-ID: " + mail.message_id + "\r\n");
  return mail;
}

// Tracks which reply answers the newest command, and whether the dot was written.
class Dialogue {
 public:
  Dialogue(CurlRequest& curl, std::string_view text) : curl_(curl), text_(text) {}

  // libcurl reads more text after it has written the last part, and writes the dot at the end of
  // the text. The dot cannot be observed: libcurl 7.88 does not report it, newer versions may write
  // it together with held-back text. From the end of the text on, it counts as sent, and no earlier
  // reply can be its answer.
  // Past the deadline nothing more is read, and therefore no dot written.
  std::size_t read(char* to, std::size_t room) {
    if (curl_.overdue()) return CURL_READFUNC_ABORT;
    const std::size_t bytes = std::min(room, text_.size());
    if (bytes == 0) {
      dot_ = true;
      reset_reply();
    }
    std::memcpy(to, text_.data(), bytes);
    text_.remove_prefix(bytes);
    return bytes;
  }

  void see(curl_infotype kind, std::string_view line) {
    if (kind == CURLINFO_HEADER_OUT) {
      command(line);
    } else if (kind == CURLINFO_HEADER_IN && !over_) {
      reply(line);
    }
  }

  bool dot() const { return dot_; }
  // Code of the complete reply to the newest command; 0: none.
  int code() const { return complete_ ? code_ : 0; }
  // Whether the newest command concerns the message; earlier ones concern the client.
  bool about_message() const { return about_message_; }
  const std::string& text() const { return reply_; }
  const std::string& last_line() const { return last_line_; }

 private:
  void command(std::string_view line) {
    if (line.starts_with("QUIT")) over_ = true;
    if (dot_ || over_) return;
    reset_reply();
    // libcurl ends the session after one rejection of these.
    about_message_ =
        line.starts_with("MAIL") || line.starts_with("RCPT") || line.starts_with("DATA");
  }

  void reply(std::string_view line) {
    if (complete_) reset_reply();
    while (!line.empty() && (line.back() == '\r' || line.back() == '\n')) line.remove_suffix(1);
    const bool has_code = line.size() >= 3 && line.find_first_not_of("0123456789") >= 3;
    if (reply_.size() < CurlRequest::body_bytes_max) (reply_ += line) += '\n';
    last_line_ = line.size() > 4 ? line.substr(4) : "";
    if (!has_code || (line.size() > 3 && line[3] != ' ')) return;
    code_ = (line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0');
    complete_ = true;
    over_ = dot_ || (about_message_ && code_ >= 400);
    // Otherwise libcurl waits up to two minutes for the reply to its QUIT, whatever the deadline.
    if (over_) curl_.stop_listening();
  }

  void reset_reply() {
    reply_.clear();
    last_line_.clear();
    code_ = 0;
    complete_ = false;
  }

  CurlRequest& curl_;
  std::string_view text_;
  std::string reply_;
  std::string last_line_;
  int code_ = 0;
  bool complete_ = false;
  bool about_message_ = false;
  bool dot_ = false;
  bool over_ = false;
};

std::size_t on_read(char* to, std::size_t size, std::size_t count, void* dialogue) {
  return static_cast<Dialogue*>(dialogue)->read(to, size * count);
}

// The server's queue id; the whole reply if its form is unknown.
std::string queue_id_of(const std::string& line) {
  for (const std::string_view before : {"queued as ", "id="}) {
    if (const std::size_t at = line.find(before); at != std::string::npos) {
      return line.substr(at + before.size(),
                         line.find_first_of(" ;,", at + before.size()) - at - before.size());
    }
  }
  return line.substr(0, queue_id_bytes_max);
}

// The table of outbox/smtp_provider.h.
Answer answer_of_reply(int code, bool about_message) {
  if (code / 100 == 4) return Answer::not_now;
  const bool wants_login = code == 530 || code == 534 || code == 535 || code == 538;
  return wants_login || !about_message ? Answer::unauthorized : Answer::refused;
}

// Only a reply to the dot can be `done`. Without any reply, the dot decides between sent and
// nothing.
Outcome outcome_of(const Dialogue& dialogue, const CurlRequest& curl, CURLcode code,
                   const MailMessage& mail) {
  Outcome outcome;
  outcome.status = dialogue.code();
  outcome.response = effects::beginning_of(dialogue.text());
  if (dialogue.dot() && outcome.status / 100 == 2) {
    outcome.phase = Phase::answered;
    outcome.answer = Answer::done;
    outcome.object = mail.message_id;
    outcome.request_id = queue_id_of(dialogue.last_line());
    return outcome;
  }
  if (outcome.status / 100 == 4 || outcome.status / 100 == 5) {
    outcome.phase = Phase::answered;
    outcome.answer = answer_of_reply(outcome.status, dialogue.about_message());
    outcome.error =
        "the mail server replied " + std::to_string(outcome.status) + " " +
        dialogue.last_line().substr(0, queue_id_bytes_max) + ". HINT: " +
        (outcome.answer == Answer::unauthorized
             ? "check username and password, and that the server accepts mail from this machine"
             : "see the text of the reply");
    return outcome;
  }
  outcome.phase = dialogue.dot() ? Phase::sent : Phase::nothing;
  outcome.error = dialogue.dot() && code == CURLE_OK
                      ? "the reply is not SMTP. HINT: check that url is a mail server"
                      : curl.error_of(code);
  return outcome;
}

}  // namespace

SmtpProvider::SmtpProvider(SmtpOptions options) : options_(checked(std::move(options))) {}

SmtpProvider::~SmtpProvider() = default;

Outcome SmtpProvider::call(const Request& request, Deadline deadline) {
  const MailMessage mail = mail_of(request, options_);
  if (!mail.fault.empty()) return effects::refused_unsent(mail.fault);
  CurlRequest curl({options_.url, "smtp,smtps", options_.ca_file, options_.connect_timeout});
  Dialogue dialogue(curl, mail.text);
  curl.watch([&](curl_infotype kind, std::string_view bytes) { dialogue.see(kind, bytes); });
  if (!options_.username.empty()) {
    curl.set(CURLOPT_USERNAME, options_.username.c_str());
    curl.set(CURLOPT_PASSWORD, options_.password.c_str());
  }
  curl.set(CURLOPT_USE_SSL,
           static_cast<long>(options_.require_tls ? CURLUSESSL_ALL : CURLUSESSL_TRY));
  curl.set(CURLOPT_MAIL_FROM, mail.from.c_str());
  for (const std::string& address : mail.to) curl.add_recipient(address);
  // Without CURLOPT_INFILESIZE: libcurl compares it with the bytes written, doubled dots included,
  // and ends a message early if the two happen to be equal.
  curl.set(CURLOPT_UPLOAD, 1L);
  curl.set(CURLOPT_READFUNCTION, &on_read);
  curl.set(CURLOPT_READDATA, &dialogue);
  const CURLcode code = curl.perform(deadline);
  return outcome_of(dialogue, curl, code, mail);
}

}  // namespace v1
}  // namespace outbox
