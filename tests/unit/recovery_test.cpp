// SPDX-License-Identifier: Apache-2.0
// Every row of the table by which recovery decides.
#include "relay/core/recovery.h"

#include <gtest/gtest.h>

namespace relay {
namespace {

using Action = Verdict::Action;
using Note = Verdict::Note;

class RecoveryTest : public ::testing::Test {
 protected:
  RecoveryTest() {
    evidence.here = {42, 2};
    Batch newest;
    newest.number = 7;
    newest.token = tokens[1];
    evidence.newest = newest;
    evidence.before = {tokens[0], Mode::exactly_once};
  }
  // A record that the relay itself would have written.
  void kafka_has(const Uuid& token, bool known, std::optional<Uuid> previous = std::nullopt) {
    evidence.progress = Progress{{42, 2}, 3, 7, token, previous};
    evidence.progress_known = known;
  }
  void expect(Action action, Note note = Note::nothing_unusual) {
    const Verdict v = decide(evidence);
    EXPECT_EQ(v.action, action);
    EXPECT_EQ(v.note, note);
    EXPECT_EQ(v.action == Action::refuse, v.refusal.has_value());
    if (v.refusal) {
      EXPECT_EQ(v.refusal->fault, Fault::refused);
      EXPECT_FALSE(v.refusal->hint.empty());
    }
  }

  Evidence evidence;
  const Uuid tokens[2] = {Uuid::random(), Uuid::random()};
  const Uuid stranger = Uuid::random();
};

TEST_F(RecoveryTest, ANewRelayStarts) {
  evidence.newest.reset();
  evidence.before.reset();
  expect(Action::go_on);
}

TEST_F(RecoveryTest, ARecordOfAnotherClusterIsRefused) {
  kafka_has(tokens[1], true);
  evidence.progress->identity.cluster = 43;
  expect(Action::refuse);
}

TEST_F(RecoveryTest, ARecordOfAnotherDatabaseIsRefusedAndAdoptionIsNamedOnlyToACopy) {
  kafka_has(tokens[1], true);
  evidence.here.database = 5;
  expect(Action::mark);  // of a record that does not say
  evidence.progress->identity.database = 5;
  expect(Action::mark);
  evidence.progress->identity.database = 6;
  expect(Action::refuse);
  EXPECT_NE(decide(evidence).refusal->hint.find("adopt"), std::string::npos);
  evidence.newest.reset();
  evidence.before.reset();
  expect(Action::refuse);
  EXPECT_EQ(decide(evidence).refusal->hint.find("adopt"), std::string::npos);
}

TEST_F(RecoveryTest, AClaimTellsOfNoBatch) {
  kafka_has(stranger, false);
  evidence.progress->number = 0;
  evidence.confirmed_since_take = true;
  expect(Action::resend, Note::progress_lost);  // there was a batch before
  evidence.before.reset();
  expect(Action::resend);
  evidence.newest.reset();
  expect(Action::go_on);
  evidence.progress->identity.cluster = 43;
  expect(Action::refuse);
}

TEST_F(RecoveryTest, ARecordOfANewerTimelineIsRefused) {
  kafka_has(tokens[1], true);
  evidence.progress->identity.timeline = 3;
  expect(Action::refuse);
}

TEST_F(RecoveryTest, ARecordOfAnOlderTimelineIsOurOwnPast) {
  kafka_has(tokens[1], true);
  evidence.progress->identity.timeline = 1;
  expect(Action::mark);
}

TEST_F(RecoveryTest, AServerThatHidesItsIdentityIsNotCompared) {
  kafka_has(tokens[1], true);
  evidence.here = {0, 0};
  expect(Action::mark);
}

TEST_F(RecoveryTest, TheTokenOfTheBatchMeansDelivered) {
  kafka_has(tokens[1], true);
  expect(Action::mark);
  evidence.newest->delivered = true;
  expect(Action::go_on);
}

TEST_F(RecoveryTest, TheTokenOfThePreviousBatchMeansNotDelivered) {
  kafka_has(tokens[0], true);
  expect(Action::resend);
}

TEST_F(RecoveryTest, NoRecordAndNoPreviousBatchMeansNotDelivered) {
  evidence.before.reset();
  expect(Action::resend);
}

TEST_F(RecoveryTest, AnOlderRecordOrNoneMeansThatKafkaLostSome) {
  kafka_has(stranger, true);
  expect(Action::resend, Note::progress_lost);
  evidence.progress.reset();
  expect(Action::resend, Note::progress_lost);
  evidence.newest->delivered = true;
  expect(Action::go_on, Note::progress_lost);
  kafka_has(tokens[0], true);
  expect(Action::go_on, Note::progress_lost);
}

TEST_F(RecoveryTest, AnUnknownRecordAfterWeConfirmedIsAnotherDatabaseUnderOurName) {
  kafka_has(stranger, false);
  evidence.confirmed_since_take = true;
  expect(Action::refuse);
}

TEST_F(RecoveryTest, AnUnknownRecordThatWeWroteOurselvesMeansThatTheDatabaseWentBackUnderUs) {
  kafka_has(stranger, false);
  evidence.confirmed_since_take = true;
  evidence.progress_is_ours = true;
  expect(Action::resend, Note::database_went_back);
}

TEST_F(RecoveryTest, AnUnknownRecordOfAnOlderTimelineIsFromBeforeTheFailOverWhoeverWroteIt) {
  kafka_has(stranger, false);
  evidence.confirmed_since_take = true;
  evidence.here.timeline = evidence.progress->identity.timeline + 1;
  expect(Action::resend, Note::database_went_back);
}

TEST_F(RecoveryTest, AnUnknownRecordOtherwiseMeansTheDatabaseWentBack) {
  kafka_has(stranger, false);
  expect(Action::resend, Note::database_went_back);
  evidence.newest->delivered = true;
  expect(Action::go_on, Note::database_went_back);
  evidence.newest.reset();
  expect(Action::go_on, Note::database_went_back);
}

TEST_F(RecoveryTest, AnUnknownRecordThatFollowsTheBatchInDoubtMeansThatItWasDelivered) {
  kafka_has(stranger, false, tokens[1]);
  expect(Action::mark, Note::database_went_back);
}

TEST_F(RecoveryTest, ABatchOpenedAtLeastOnceIsSentAgainWhateverTheRecordSays) {
  evidence.newest->mode = Mode::at_least_once;
  kafka_has(tokens[1], true);
  expect(Action::resend);
  kafka_has(stranger, false, tokens[1]);
  expect(Action::resend, Note::database_went_back);
}

TEST_F(RecoveryTest, AtLeastOnceARecordCanBeMissing) {
  evidence.newest->mode = evidence.before->mode = Mode::at_least_once;
  for (const bool delivered : {false, true}) {
    evidence.newest->delivered = delivered;
    const Action action = delivered ? Action::go_on : Action::resend;
    kafka_has(tokens[0], true);
    expect(action);
    kafka_has(stranger, true);
    expect(action);
    evidence.progress.reset();
    expect(action);
  }
}

TEST_F(RecoveryTest, WhatThisProcessSawAcknowledgedAtLeastOnceIsNotSentAgain) {
  evidence.newest->mode = Mode::at_least_once;
  evidence.newest_is_ours = true;
  kafka_has(tokens[1], true);
  expect(Action::mark);
  kafka_has(tokens[0], true);
  expect(Action::mark);
  kafka_has(stranger, false);
  expect(Action::mark, Note::database_went_back);
}

TEST_F(RecoveryTest, WhetherARecordCanBeMissingIsForTheModeOfItsOwnBatch) {
  kafka_has(stranger, true);
  evidence.before->mode = Mode::at_least_once;
  expect(Action::resend);
  evidence.newest->mode = Mode::at_least_once;
  evidence.before->mode = Mode::exactly_once;
  expect(Action::resend, Note::progress_lost);
}

TEST_F(RecoveryTest, ExactlyOnceBelievesKafkaMoreThanItself) {
  evidence.newest_is_ours = true;
  kafka_has(stranger, true);
  expect(Action::resend, Note::progress_lost);
}

}  // namespace
}  // namespace relay
