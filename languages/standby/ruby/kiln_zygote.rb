# SPDX-License-Identifier: Apache-2.0
# frozen_string_literal: true

# Makes of a Ruby that starts the one that tasks are forked of: see src/sandbox/zygote_ruby.c. Ruby has
# opened its program, which is no more than a place for it, and requires this before it reads on.

program = ObjectSpace.each_object(File).find { |file| !file.closed? && file.path == $PROGRAM_NAME }
abort "this Ruby does not keep its program open" unless program
$LOAD_PATH.delete(__dir__)
# What is garbage now would be collected in each fork, and the marks for that copy its pages.
3.times { GC.start }
GC.disable
fork # returns in each task
GC.enable
program.reopen($PROGRAM_NAME)
Gem.clear_paths # which are also those of a home folder that was not there
