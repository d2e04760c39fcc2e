; The harness: a 1 MB LoROM cartridge that calls the routine under test and reports how it came back.
;
; All 128 KB of WRAM belong to the test, so the mailbox lies in cartridge SRAM and the only WRAM the harness touches is
; the stack page. The host fills the mailbox and writes `cmd`; the harness waits for a fixed place on the screen, latches
; the H/V counters, loads the registers and jumps to a trampoline that the host has written (see machine.py):
;   return by RTS   bank of the code, $FE00:  JSR code : JML came_back    and at $FE14: JML rts_for_rtl
;   return by RTL   $0E:FE10:                 JSL code : JML came_back    and at $0E:FE03: JML rtl_for_rts
; A wrong kind of return pops the sentinel ($0E) or too little, and lands on the second stub.
;
; What a call reports here is a claim: the routine can write the mailbox, too. The host proves a good one by a second call
; in whose cartridge the three places of return are loops; there it reads the registers out of the CPU itself.
; Banks: $00 harness, $01-$0D code under test, $0E stubs, $0F pattern for VRAM/CGRAM/OAM (host), $10-$1F free space.

lorom
!sentinel = $0E0E

!cmd    = $700000           ; word, host -> harness: 0 idle, 1 call
!status = $700002           ; word: 0 running, then one of the codes below
!enter  = $700008           ; long pointer: the trampoline
!start_h = $70000C          ; words: dot and line where the call starts
!start_v = $70000E
!in_a   = $700010
!in_x   = $700012
!in_y   = $700014
!in_d   = $700016
!in_b   = $700018
!in_p   = $700019
!out_a  = $700020
!out_x  = $700022
!out_y  = $700024
!out_d  = $700026
!out_s  = $700028
!out_b  = $70002A
!out_p  = $70002B
!out_e  = $70002C           ; bit 0: came back in emulation mode
!clock0 = $700030           ; H (dots, 9 bits), V (lines, 9 bits) at the start and at the end
!clock1 = $700034
!code   = $700038           ; the status to report
!RETURNED    = $A501
!RTL_FOR_RTS = $A502
!RTS_FOR_RTL = $A503
!BRK_HIT     = $A504
!COP_HIT     = $A505

macro read_counters(to)     ; 8-bit A; the counters are latched
    LDA.l $00213F           ; both flip-flops to "low byte"
    LDA.l $00213C
    STA.l <to>
    LDA.l $00213C
    AND.b #$01
    STA.l <to>+1
    LDA.l $00213D
    STA.l <to>+2
    LDA.l $00213D
    AND.b #$01
    STA.l <to>+3
endmacro

macro come_back(code)       ; entered in whatever state the routine left
    PHP                     ; P of the routine
    CLC
    XCE
    PHP                     ; its carry: was it in emulation mode?
    REP #$38
    STA.l !out_a
    SEP #$20
    LDA.l $002137           ; latch the counters
    REP #$20
    LDA.w #<code>
    JML report
endmacro

macro dma(mode, register, from, length)   ; 16-bit X and Y, 8-bit A: pattern -> PPU through channel 0
    LDX.w #<mode>|(<register><<8)
    STX.w $4300
    LDX.w #<from>
    STX.w $4302
    LDA.b #$0F
    STA.w $4304
    LDX.w #<length>
    STX.w $4305
    LDA.b #$01
    STA.w $420B
endmacro

org $008000
reset:
    SEI
    CLC
    XCE
    REP #$38
    LDA.w #$01FF
    TCS
    LDA.w #$0000
    TCD
    SEP #$20
    PHA
    PLB
    STZ.w $4200
    STZ.w $420B
    STZ.w $420C
    STZ.w $420D
    LDA.b #$80              ; forced blank: VRAM, CGRAM and OAM can be written at any time
    STA.w $2100
    LDA.b #$FF              ; lets a read of $2137 latch the counters
    STA.w $4201

    LDA.b #$80              ; VRAM gets the first 16 KB of the pattern four times, CGRAM and OAM other parts of it
    STA.w $2115
    LDX.w #$0000
    STX.w $2116
    %dma($01, $18, $8000, $4000)
    %dma($01, $18, $8000, $4000)
    %dma($01, $18, $8000, $4000)
    %dma($01, $18, $8000, $4000)
    STZ.w $2121
    %dma($00, $22, $C000, $0200)
    STZ.w $2102
    STZ.w $2103
    %dma($00, $04, $D000, $0220)

    LDX.w #$007F            ; junk in every register that a routine may forget to set
-   LDA.l dma_junk,X
    STA.w $4300,X
    DEX
    BPL -
    LDA.b #$06
    STA.w $2115
    LDX.w #$4B17
    STX.w $2116
    LDA.b #$5D
    STA.w $2121
    LDX.w #$0137
    STX.w $2102
    LDX.w #$A9C3
    STX.w $2181
    LDA.b #$01
    STA.w $2183
    LDX.w #$D3EB
    STX.w $4202
    LDX.w #$B6F5
    STX.w $4204
    LDA.b #$2F
    STA.w $4206

    REP #$20
    LDA.w #$0000
    STA.l !cmd
    STA.l !status
idle:
    REP #$20
-   LDA.l !cmd
    BEQ -
    LDA.w #$0000
    STA.l !cmd
    STA.l !status

    LDA.w #$01FF
    TCS
    LDA.w #!sentinel
    PHA
    PHA
    PHA
    PHA                     ; S = $01F7
    LDA.l !enter            ; the way into the trampoline: RTL to it, once the registers are loaded
    DEC
    TAX
    SEP #$20
    LDA.l !enter+2
    PHA
    PHX
    LDA.l !in_p             ; pulled in the opposite order
    PHA
    REP #$20
    LDA.l !in_a
    PHA
    LDA.l !in_x
    PHA
    LDA.l !in_y
    PHA
    SEP #$20
    LDA.l !in_b
    PHA
    REP #$20
    LDA.l !in_d
    PHA

    REP #$20                ; wait for the start position
    LDA.l !start_h
    STA.l $004207
    LDA.l !start_v
    STA.l $004209
    SEP #$20
    LDA.b #$30
    STA.l $004200
    LDA.l $004211
    WAI
    LDA.l $004211
    LDA.b #$00
    STA.l $004200
    LDA.l $002137
    %read_counters(!clock0)
    REP #$30
    PLD
    PLB
    PLY
    PLX
    PLA
    PLP
    RTL

came_back:
    %come_back(!RETURNED)
rtl_for_rts:
    %come_back(!RTL_FOR_RTS)
rts_for_rtl:
    %come_back(!RTS_FOR_RTL)

report:
    STA.l !code
    REP #$10
    TXA
    STA.l !out_x
    TYA
    STA.l !out_y
    TDC
    STA.l !out_d
    SEP #$20
    PLA
    AND.b #$01
    STA.l !out_e
    PLA
    STA.l !out_p
    PHB
    PLA
    STA.l !out_b
    REP #$20
    TSC
    STA.l !out_s
    LDA.w #$01F7            ; whatever the routine did to it; the sentinel above stays as it is
    TCS
    LDA.w #$0000
    TCD
    SEP #$24
    PHA
    PLB
    %read_counters(!clock1)
    STZ.w $4200
    STZ.w $420C
    REP #$30
    LDA.l !code
    STA.l !status
    JMP idle

break:
    REP #$30
    LDA.w #!BRK_HIT
-   STA.l !status
    BRA -
coprocessor:
    REP #$30
    LDA.w #!COP_HIT
-   STA.l !status
    BRA -
break_emulated:
    CLC
    XCE
    JMP break

nmi:
    PHP
    REP #$20
    PHA
    LDA.l $004210
    PLA
    PLP
    RTI
irq:
    PHP
    REP #$20
    PHA
    LDA.l $004211
    PLA
    PLP
    RTI

dma_junk:                   ; a stray channel writes to VRAM, where it shows
    !i = 0
    while !i < 8
    db $0C,$19,$C5,$D3,$E9,$F1,$C6,$DB,$F4,$E2,$CD,$D7,$CA,$F8,$DE,$C9
    !i #= !i+1
    endwhile
assert pc() <= $00FF00, "the harness does not fit below its header"

org $00FFC0
    db "HAFS HARNESS         "
    db $20,$02,$0A,$03,$00,$33,$00   ; LoROM, ROM + RAM + battery, 1 MB, 8 KB of RAM
    dw $0000,$FFFF
    dw $0000,$0000,coprocessor,break,break,nmi,break,irq
    dw $0000,$0000,coprocessor,break,break,nmi,reset,break_emulated

org $0EFE03
    JML rtl_for_rts

org $1FFFFF
    db $00
